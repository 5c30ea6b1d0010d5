"""Passwords, tokens and keys: read from files, and told of where everybody may read them."""

import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from worker.errors import SettingsError
from worker.sections import DimseSettings, DimseSourceSettings
from worker.settings import Settings, config_file


def read_secret(path: Path) -> str:
    """Return the first line of a file with a password or token. Raises SettingsError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"The password or token in {path} cannot be read: {reason}.") from error
    if not lines or not lines[0].strip():
        raise SettingsError(f"{path} should hold a password or token, and is empty.")
    return lines[0].strip()


def check_secrets(settings: Settings) -> str:
    """Say how secrets are kept. Raises SettingsError where everybody on this machine may read one."""
    files = list(dict.fromkeys(_files(settings)))
    exposed = [path for path in files if _everybody_reads(path)]
    if exposed:
        raise SettingsError(
            f"everybody on this machine may read {', '.join(map(str, exposed))}: 'chmod o-rwx' takes that back."
        )
    return f"{len(files)} files, none of which everybody may read" if files else "none in files"


def _files(settings: Settings) -> Iterator[Path]:
    named = config_file()
    if named is not None and _holds_secret(tomllib.loads(named.read_text(encoding="utf-8"))):
        yield named
    if settings.privacy.key_file is not None:
        yield settings.privacy.key_file
    for section in (settings.listener, settings.audit):
        if section.tls is not None:
            yield section.tls.key
    if settings.http.tls is not None:
        yield settings.http.tls.key
    yield from (account.token_file for account in settings.http.accounts if account.token_file is not None)
    for destination in (*settings.destinations, *settings.sources):
        if isinstance(destination, (DimseSettings, DimseSourceSettings)):
            if destination.tls is not None:
                yield destination.tls.key
        elif destination.auth is not None:
            for path in (destination.auth.password_file, destination.auth.token_file):
                if path is not None:
                    yield path


def _holds_secret(content: object) -> bool:
    """Whether settings hold a password or token themselves."""
    if isinstance(content, dict):
        return any(
            (name in ("password", "token") and bool(value))
            or (name in ("database_url", "broker_url") and _has_password(value))
            or _holds_secret(value)
            for name, value in content.items()
        )
    return isinstance(content, list) and any(map(_holds_secret, content))


def _has_password(url: object) -> bool:
    try:
        return make_url(str(url)).password is not None
    except (ArgumentError, ValueError):
        return "@" in str(url)


def _everybody_reads(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:  # whoever needs it says so
        return False
