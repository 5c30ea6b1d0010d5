"""TLS with certificates on both sides, as who listens and as who connects."""

import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from pacs.archive import Archive
from pacs.destinations import DimseDestination
from pacs.errors import Retry, TlsError
from pacs.listener import Listener
from pacs.tls import Identity, client_context, server_context
from tests.datasets import ct, write
from tests.installation import send
from tests.integration.test_limits import closed
from tests.integration.test_limits import seen as seen  # noqa: PLC0414 – fixtures
from tests.integration.test_limits import spool as spool  # noqa: PLC0414
from tests.integration.test_limits import start as start  # noqa: PLC0414


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def identity(folder: Path, authority: trustme.CA, *, trusted: trustme.CA | None = None) -> Identity:
    folder.mkdir(parents=True)
    issued = authority.issue_cert("127.0.0.1", "localhost")
    authorities = folder / "authorities.pem"
    made = Identity(folder / "own.pem", folder / "own.key", authorities)
    issued.private_key_pem.write_to_path(made.key)
    for index, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(made.certificate, append=index > 0)
    (trusted or authority).cert_pem.write_to_path(authorities)
    return made


def test_tls_with_certificates_on_both_sides(
    start: Callable[..., Listener], tmp_path: Path, authority: trustme.CA, dcmtk: dict[str, str]
) -> None:
    ours = identity(tmp_path / "ours", authority)
    listener = start(tls=server_context(ours))
    stuck = socket.create_connection(("127.0.0.1", listener.port))
    theirs = identity(tmp_path / "theirs", authority)
    files = write(tmp_path / "in", ct(1))
    secure = ("+tls", str(theirs.key), str(theirs.certificate), "+cf", str(theirs.authorities))
    done = send(dcmtk["storescu"], listener.port, *files, options=secure)
    assert done.returncode == 0, done.stderr
    assert closed(stuck, 4), "a handshake that does not go on is ended"
    stuck.close()
    assert send(dcmtk["storescu"], listener.port, *files).returncode != 0, "plain text"
    anonymous = send(dcmtk["storescu"], listener.port, *files, options=("+tla", "+cf", str(theirs.authorities)))
    assert anonymous.returncode != 0, "no certificate"
    stranger = trustme.CA()
    unknown = identity(tmp_path / "unknown", stranger, trusted=authority)
    foreign = ("+tls", str(unknown.key), str(unknown.certificate), "+cf", str(unknown.authorities))
    assert send(dcmtk["storescu"], listener.port, *files, options=foreign).returncode != 0, "another authority"
    assert send(dcmtk["storescu"], listener.port, *files, options=secure).returncode == 0


@pytest.mark.parametrize(("version", "works"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_only_tls_1_2_and_1_3(
    start: Callable[..., Listener], tmp_path: Path, authority: trustme.CA, version: str, works: bool
) -> None:
    listener = start(tls=server_context(identity(tmp_path / "ours", authority)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs = identity(tmp_path / "theirs", authority)
    context.load_cert_chain(theirs.certificate, theirs.key)
    context.load_verify_locations(theirs.authorities)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # Python warns of the old version, as it should
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion[version]
    with socket.create_connection(("127.0.0.1", listener.port)) as plain:
        if works:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                assert secured.version() == version.replace("_", ".")
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_destination_is_reached_by_tls_and_must_be_who_it_says(tmp_path: Path, authority: trustme.CA) -> None:
    ours = identity(tmp_path / "ours", authority)
    archive = Listener(
        Archive(tmp_path / "archive"), ae_title="ARCHIVE", host="127.0.0.1", port=0, tls=server_context(ours)
    )
    archive.start()
    try:
        theirs = identity(tmp_path / "theirs", authority)
        reached = DimseDestination("pacs", "127.0.0.1", archive.port, "ARCHIVE", "RETICULA", 5, client_context(theirs))
        reached.check()
        deceived = identity(tmp_path / "other", authority, trusted=trustme.CA())
        for tls in (client_context(deceived), None):
            with pytest.raises(Retry):
                DimseDestination("pacs", "127.0.0.1", archive.port, "ARCHIVE", "RETICULA", 3, tls).check()
    finally:
        archive.stop()


def test_files_that_are_no_keys_are_one_sentence(tmp_path: Path, authority: trustme.CA) -> None:
    good = identity(tmp_path / "ours", authority)
    with pytest.raises(TlsError, match="readable PEM files"):
        server_context(replace(good, certificate=tmp_path / "none.pem"))
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", good.key, "-aes256", "-passout", "pass:secret", "-out", locked], check=True
    )
    with pytest.raises(TlsError, match="without a password"):
        server_context(replace(good, key=locked))
