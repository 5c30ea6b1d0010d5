"""Several listener processes on one port: counts hold across them, and one that dies costs its own associations."""

import errno
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from tests.datasets import ct
from tests.installation import Installation, send
from tests.plant import files
from tests.servers import wait_for
from training.phantom import PhantomExam

Phantoms = tuple[Path, list[PhantomExam]]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "site", listeners=2, RETICULA_LISTENER__MAX_ASSOCIATIONS="4",
                        RETICULA_LISTENER__MAX_ASSOCIATIONS_PER_PEER="3")  # fmt: skip
    made.prepare()
    yield made
    made.close()


def associate(installation: Installation, title: str = "ONE") -> Association:
    entity = AE(title)
    entity.add_requested_context(CTImageStorage)
    return entity.associate("127.0.0.1", installation.port, ae_title="RETICULA")


def is_rejected(installation: Installation, title: str = "ONE") -> bool:
    """Nobody may be let in. On a busy machine the limit on connections, 8 here, may close one before it is answered."""
    association = associate(installation, title)
    assert not association.is_established
    return association.is_rejected


def test_limits_hold_across_processes_and_a_dead_one_gives_its_places_back(installation: Installation) -> None:
    listener = installation.start("listen")
    open_ = [associate(installation) for _ in range(3)]
    assert all(each.is_established for each in open_)
    wait_for(lambda: is_rejected(installation), "a rejection: three of one peer are the most", 10)
    open_.append(associate(installation, "TWO"))
    assert open_[-1].is_established
    wait_for(lambda: is_rejected(installation, "THREE"), "a rejection: four in all are the most", 10)

    serving = psutil.Process(listener.pid).children()
    assert len(serving) == 2
    for child in serving:
        child.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(each.is_established for each in open_), "the ends of their associations")
    wait_for(lambda: associate(installation, "FOUR").is_established, "a listener that was started again", 20)
    assert listener.poll() is None
    for each in open_:
        each.abort()


def test_each_takes_its_share(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "site", listeners=2)
    installation.prepare()
    listener = installation.start("listen")
    open_ = [associate(installation) for _ in range(6)]
    shares = [
        sum(each.status == psutil.CONN_ESTABLISHED for each in child.net_connections())
        for child in psutil.Process(listener.pid).children()
    ]
    assert shares == [3, 3]
    for each in open_:
        each.release()
    installation.close()


def test_who_comes_while_they_end_is_refused_at_once(installation: Installation) -> None:
    listener = installation.start("listen")
    lingering = associate(installation)
    assert lingering.is_established
    listener.send_signal(signal.SIGTERM)

    def refused() -> bool:
        with socket.socket() as late:
            return late.connect_ex(("127.0.0.1", installation.port)) == errno.ECONNREFUSED

    wait_for(refused, "a port that is closed", 5)
    assert listener.poll() is None, "who is connected may end in peace"
    lingering.release()
    assert listener.wait(30) == 0


def test_what_is_for_the_supervisor_is_said_in_a_sentence(installation: Installation) -> None:
    for options in (["--part", "0"], ["--part", "0", "--descriptor", "99", "--counts", "98"]):
        said = installation.run("listen", *options, check=False)
        assert said.returncode == 1
        assert "leave them out" in said.stderr
        assert "Traceback" not in said.stderr


def test_both_take_instances_and_one_that_dies_loses_nothing(
    installation: Installation, phantoms: Phantoms, dcmtk: dict[str, str]
) -> None:
    listener = installation.start("listen")
    taken = []
    for number in range(12):
        association = associate(installation)
        assert association.is_established
        status = association.send_c_store(ct(number, SOPInstanceUID=f"1.2.3.4.5.{number}"))
        assert status.Status == 0x0000
        taken.append(number)
        association.release()
        if number == 6:
            psutil.Process(listener.pid).children()[0].send_signal(signal.SIGKILL)
    stored = {path.stem for path in (installation.data / "spool" / "series").rglob("*.dcm")}
    assert stored == {f"1.2.3.4.5.{number}" for number in taken}
    sent = send(dcmtk["storescu"], installation.port, *files(phantoms))
    assert sent.returncode == 0, sent.stderr
    assert installation.stop(listener) == 0
    assert not [child for child in psutil.process_iter() if child.ppid() == listener.pid]


def test_a_taken_port_is_said_in_a_sentence(installation: Installation, tmp_path: Path) -> None:
    installation.start("listen")
    other = Installation(tmp_path / "other", listeners=2)
    other.environment["RETICULA_LISTENER__PORT"] = str(installation.port)
    done = other.run("listen", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Cannot listen on 127.0.0.1:{installation.port}: Address already in use.")
