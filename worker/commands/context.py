"""What every command begins with: settings, logging, the application."""

from functools import cache

from worker.application import Application, configure_logging
from worker.processes import die_with_supervisor
from worker.settings import load_settings


@cache
def application() -> Application:
    """Return the application of this process. Raises SettingsError."""
    die_with_supervisor()
    settings = load_settings()
    configure_logging()
    return Application(settings)
