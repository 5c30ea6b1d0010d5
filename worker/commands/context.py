"""What every command begins with: settings, logging, the application."""

import os
from functools import cache

from worker import logs
from worker.application import Application
from worker.processes import die_with_supervisor
from worker.settings import load_settings

_UMASK = 0o027  # what we write holds patient data: nothing for others


@cache
def application() -> Application:
    """Return the application of this process. Raises SettingsError."""
    die_with_supervisor()
    os.umask(_UMASK)
    settings = load_settings()
    logs.configure()
    return Application(settings)
