"""DICOM over TLS as BCP 195 has it (PS3.15 B.9 and B.10): versions 1.2 and 1.3, both sides show a certificate."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import TlsError

# RFC 9325 section 4.2: forward secrecy and authenticated encryption only. Those of 1.3 are all of that kind.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"


@dataclass(frozen=True)
class Identity:
    """PEM files: our certificate with its key, and the authorities whose certificates are believed.

    Without authorities a server asks nobody for a certificate; a client needs them.
    """

    certificate: Path
    key: Path
    authorities: Path | None


def server_context(identity: Identity) -> ssl.SSLContext:
    """Return the context of a server, which asks every client for a certificate. Raises TlsError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.verify_mode = ssl.CERT_NONE if identity.authorities is None else ssl.CERT_REQUIRED
    return context


def client_context(identity: Identity) -> ssl.SSLContext:
    """Return the context for a destination, whose certificate must name its host. Raises TlsError."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity)


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    files = identity.certificate, identity.key, identity.authorities
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(identity.certificate, identity.key, password=_no_password)
        if identity.authorities is not None:
            context.load_verify_locations(identity.authorities)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise TlsError(
            f"TLS cannot be set up ({reason}): see that "
            f"{', '.join(str(each) for each in files if each)} are readable PEM files, the key without a password."
        ) from error
    return context


def _no_password() -> str:
    """Without this OpenSSL would ask on the terminal, and a service would wait there for ever."""
    raise ValueError("the key has a password")
