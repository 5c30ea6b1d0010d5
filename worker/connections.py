"""From settings to those that we talk to: destinations, sources, and what proves who we are."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from worker.sections import (
    AuthSettings,
    DestinationSettings,
    DicomwebSettings,
    DicomwebSourceSettings,
    HttpTlsSettings,
    SourceSettings,
    TlsSettings,
)

if TYPE_CHECKING:
    from pacs.commitment import CommitmentResult
    from pacs.destinations import Destination
    from pacs.retrieval import Source
    from pacs.tls import Identity


def make_destination(configured: DestinationSettings, keep: "Callable[[CommitmentResult], None]") -> "Destination":
    """Make the destination that the settings describe. keep: is given results of commitments that come unasked."""
    from pacs.destinations import DicomwebDestination, DimseDestination

    if not isinstance(configured, DicomwebSettings):
        from pacs.tls import client_context

        identity = tls_identity(configured.tls)
        return DimseDestination(
            configured.name,
            configured.host,
            configured.port,
            configured.ae_title,
            configured.calling_ae,
            tls=None if identity is None else client_context(identity),
            commitment=configured.commitment,
            keep=keep,
        )
    return DicomwebDestination(configured.name, configured.url, _credentials(configured.auth), configured.verify)


def make_source(configured: SourceSettings, longest: int, timeout: float) -> "Source":
    """Make the source that the settings describe. longest: bytes that an instance may have."""
    from pacs.retrieval import DicomwebSource, DimseSource

    if isinstance(configured, DicomwebSourceSettings):
        credentials = _credentials(configured.auth)
        return DicomwebSource(configured.name, configured.url, credentials, configured.verify, timeout, longest)
    from pacs.tls import client_context

    identity = tls_identity(configured.tls)
    return DimseSource(
        configured.name,
        configured.host,
        configured.port,
        configured.ae_title,
        configured.calling_ae,
        retrieve=configured.retrieve,
        timeout=timeout,
        tls=None if identity is None else client_context(identity),
    )


def _credentials(configured: AuthSettings | None) -> tuple[str, str] | str | None:
    """Return user and password, or a token. Raises SettingsError."""
    if configured is None:
        return None
    if configured.user is None:
        return secret(configured.token, configured.token_file)
    return configured.user, secret(configured.password, configured.password_file)


def secret(here: SecretStr | None, file: Path | None) -> str:
    """Return a password or token that stands in the settings or in a file. Raises SettingsError."""
    from worker.secrets import read_secret

    return here.get_secret_value() if here is not None else read_secret(file or Path())


def tls_identity(configured: TlsSettings | HttpTlsSettings | None) -> "Identity | None":
    """Return what TLS needs, or None where it is not set."""
    from pacs.tls import Identity

    return None if configured is None else Identity(configured.certificate, configured.key, configured.authorities)
