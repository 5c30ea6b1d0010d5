"""Storage commitment both ways: ours only for what is on disk, and a report that counts when it is committed."""

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from pacs.commitment import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_COMMITMENT,
    CommitmentProvider,
    CommitmentRequest,
    CommitmentResult,
    CommitmentService,
    Reference,
    Requestor,
)
from pacs.listener import Listener, Peer
from pacs.report import SR_CLASSES
from pacs.spool import ReceivedInstance, Spool
from tests.datasets import SERIES, STUDY, ct, write
from tests.installation import send
from tests.plant import Plant, files
from tests.servers import Orthanc, free_port, wait_for
from training.phantom import PhantomExam
from worker.database import Database
from worker.sections import DimseSettings, PeerSettings

Phantoms = tuple[Path, list[PhantomExam]]
Results = queue.SimpleQueue[CommitmentResult]

# pynetdicom answers an event after its handler; who releases before that sends it into a closed association.
_ANSWER_SECONDS = 0.5


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


def store(spool: Spool, folder: Path, number: int) -> Reference:
    dataset = ct(number)
    (path,) = write(folder, dataset)
    spool.store(ReceivedInstance(CTImageStorage, dataset.SOPInstanceUID, STUDY, SERIES, path.read_bytes()))
    return Reference(CTImageStorage, dataset.SOPInstanceUID)


@contextmanager
def listening(spool: Spool, folder: Path, port: int = 0, ports: dict[Requestor, int] | None = None) -> Iterator[int]:
    provider = CommitmentProvider(spool, folder / "requests", ae_title="RETICULA", ports=ports or {})
    listener = Listener(
        spool,
        ae_title="RETICULA",
        host="127.0.0.1",
        port=port,
        peers=[Peer("TESTER", "127.0.0.1"), Peer("ORTHANC", "127.0.0.1")],
        commitment=CommitmentService(provider, lambda _result: None),
    )
    listener.start()
    try:
        yield listener.port
    finally:
        listener.stop()


@contextmanager
def requestor(port: int) -> Iterator[Results]:
    """A client that takes results by associations of their own."""
    results = Results()

    def take(event: Any) -> tuple[int, None]:
        results.put(CommitmentResult.read(event.event_information))
        return 0, None

    entity = AE("TESTER")
    entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)])
    assert isinstance(server, ThreadedAssociationServer)
    try:
        yield results
    finally:
        server.shutdown()


def ask(
    port: int,
    dataset: Dataset,
    *,
    action: int = REQUEST_COMMITMENT,
    instance: str = PUSH_MODEL_INSTANCE,
    wait: float = 0,
) -> tuple[int | None, CommitmentResult | None]:
    """Ask for a commitment; return the status, and what came by the same association within so many seconds."""
    results = Results()

    def take(event: Any) -> tuple[int, None]:
        results.put(CommitmentResult.read(event.event_information))
        return 0, None

    entity = AE("TESTER")
    entity.add_requested_context(PUSH_MODEL)
    association = entity.associate(
        "127.0.0.1", port, ae_title="RETICULA", evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)]
    )
    assert association.is_established
    try:
        status, _reply = association.send_n_action(dataset, action, PUSH_MODEL, instance)
        try:
            result = results.get(timeout=wait) if wait else None
        except queue.Empty:
            return status.get("Status"), None
        time.sleep(_ANSWER_SECONDS if wait else 0)
        return status.get("Status"), result
    finally:
        association.release()


def request(*references: Reference) -> CommitmentRequest:
    return CommitmentRequest(str(generate_uid(prefix=None)), references)


def test_only_what_is_on_disk_is_committed(spool: Spool, tmp_path: Path) -> None:
    first, second = store(spool, tmp_path, 1), store(spool, tmp_path, 2)
    never, gone = Reference(CTImageStorage, "1.2.3.999"), store(spool, tmp_path, 3)
    spool.find([gone.sop_uid])[gone.sop_uid].unlink()
    other = Reference(ComprehensiveSRStorage, second.sop_uid)
    asked = request(first, other, never, gone)
    with listening(spool, tmp_path) as port:
        assert ask(port, asked.dataset(), wait=10) == (
            0,
            CommitmentResult(asked.transaction_uid, (first,), ((other, 0x0119), (never, 0x0112), (gone, 0x0112))),
        )
        asked = request(first, second)
        assert ask(port, asked.dataset(), wait=10)[1] == CommitmentResult(asked.transaction_uid, (first, second))
    assert list((tmp_path / "requests").iterdir()) == []


def test_a_peer_that_goes_on_storing_gets_answers_and_the_result(spool: Spool, tmp_path: Path) -> None:
    results = Results()

    def take(event: Any) -> tuple[int, None]:
        results.put(CommitmentResult.read(event.event_information))
        return 0, None

    entity = AE("TESTER")
    entity.dimse_timeout = 5
    entity.add_requested_context(PUSH_MODEL)
    entity.add_requested_context(CTImageStorage)
    asked = []
    with listening(spool, tmp_path) as port:
        association = entity.associate(
            "127.0.0.1", port, ae_title="RETICULA", evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)]
        )
        for number in range(1, 8):
            assert association.send_c_store(ct(number)).Status == 0
            asked.append(request(Reference(CTImageStorage, ct(number).SOPInstanceUID)))
            status, _reply = association.send_n_action(
                asked[-1].dataset(), REQUEST_COMMITMENT, PUSH_MODEL, PUSH_MODEL_INSTANCE
            )
            assert status.Status == 0
        found = {results.get(timeout=10).transaction_uid for _ in asked}
        time.sleep(_ANSWER_SECONDS)
        association.release()
    assert found == {each.transaction_uid for each in asked}


def test_of_what_came_with_several_contents_none_is_committed(spool: Spool, tmp_path: Path) -> None:
    reference = store(spool, tmp_path, 1)
    other = ct(1, PatientName="Another^One")
    (path,) = write(tmp_path / "other", other)
    spool.store(ReceivedInstance(CTImageStorage, other.SOPInstanceUID, STUDY, SERIES, path.read_bytes()))
    provider = CommitmentProvider(spool, tmp_path / "requests", ae_title="RETICULA", ports={})
    assert provider.judge(request(reference)).failed == ((reference, 0x0110),)


def test_a_peer_with_a_port_gets_the_result_there_even_by_the_next_process(spool: Spool, tmp_path: Path) -> None:
    reference, port = store(spool, tmp_path, 1), free_port()
    ports = {Requestor("TESTER", "127.0.0.1"): port}
    asked, later = request(reference), request(reference)
    with requestor(port) as results, listening(spool, tmp_path, ports=ports) as listener_port:
        assert ask(listener_port, asked.dataset()) == (0, None)
        assert results.get(timeout=10) == CommitmentResult(asked.transaction_uid, (reference,))
    with listening(spool, tmp_path, ports=ports) as listener_port:
        assert ask(listener_port, later.dataset()) == (0, None)
    (kept,) = (tmp_path / "requests").iterdir()
    (tmp_path / "requests" / "odd.json").write_text("{")
    with requestor(port) as results, listening(spool, tmp_path, ports=ports):
        assert results.get(timeout=10) == CommitmentResult(later.transaction_uid, (reference,))
        wait_for(lambda: not kept.exists(), "its file to go", 5)
    assert [path.name for path in (tmp_path / "requests").iterdir()] == ["odd.odd"]


def test_a_request_that_makes_no_sense_is_answered_so(spool: Spool, tmp_path: Path) -> None:
    reference = store(spool, tmp_path, 1)
    without_transaction = request(reference).dataset()
    without_transaction.TransactionUID = ""
    with listening(spool, tmp_path) as port:
        assert ask(port, request().dataset()) == (0x0115, None)
        assert ask(port, without_transaction) == (0x0115, None)
        assert ask(port, request(Reference(CTImageStorage, "")).dataset()) == (0x0115, None)
        assert ask(port, request(reference).dataset(), action=2) == (0x0123, None)
        assert ask(port, request(reference).dataset(), instance="1.2.3") == (0x0112, None)
        assert ask(port, request(*[reference] * 40_000).dataset()) == (0x0213, None)
        assert ask(port, request(reference).dataset(), wait=10)[1] is not None


def test_orthanc_has_its_instances_committed(
    orthanc: Orthanc, spool: Spool, tmp_path: Path, dcmtk: dict[str, str]
) -> None:
    (path,) = write(tmp_path / "sent", ct(1))
    assert send(dcmtk["storescu"], orthanc.port, path, called="ORTHANC").returncode == 0
    (instance,) = orthanc.get("/instances")
    with listening(spool, tmp_path, ports={Requestor("ORTHANC", "127.0.0.1"): orthanc.port}) as port:
        modality(orthanc, port)
        url = f"http://127.0.0.1:{orthanc.http}/modalities/reticula"
        requests.post(f"{url}/store", data=instance, timeout=20).raise_for_status()
        answer = requests.post(f"{url}/storage-commitment", json={"Resources": [instance]}, timeout=20)
        transaction = answer.json()["ID"]
        done = wait_for(lambda: finished(orthanc, transaction), "the result in Orthanc", 20)
    assert (done["Status"], len(done["Success"])) == ("Success", 1)


def modality(orthanc: Orthanc, port: int) -> None:
    known = {"AET": "RETICULA", "Host": "127.0.0.1", "Port": port}
    requests.put(f"http://127.0.0.1:{orthanc.http}/modalities/reticula", json=known, timeout=20).raise_for_status()


def finished(orthanc: Orthanc, transaction: str) -> dict[str, Any] | None:
    report: dict[str, Any] = orthanc.get(f"/storage-commitment/{transaction}")
    return None if report["Status"] == "Pending" else report


# Our own reports.


def plant_with(folder: Path, database: Database, port: int, ae_title: str) -> Plant:
    """An installation whose listener takes results from the one destination, which is asked for them."""
    destination = DimseSettings(
        name="pacs", kind="dimse", host="127.0.0.1", port=port, ae_title=ae_title, commitment=True
    )
    return Plant(
        folder,
        database,
        destinations=(destination,),
        peers=(PeerSettings(ae_title=ae_title, address="127.0.0.1", port=port),),  # type: ignore[arg-type]
        port=free_port(),
    )


def delivery(plant: Plant, exam: PhantomExam) -> dict[str, Any]:
    (row,) = plant.exam(exam.series_uid)["deliveries"]
    return dict(row)


def test_a_report_counts_when_orthanc_has_committed_itself(
    orthanc: Orthanc, database: Database, tmp_path: Path, phantoms: Phantoms
) -> None:
    exam = phantoms[1][0]
    plant = plant_with(tmp_path / "data", database, orthanc.port, "ORTHANC")
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*files(phantoms), age=60)
    modality(orthanc, plant.settings.listener.port)
    plant.app.destinations["pacs"].check()
    plant.run()
    # Orthanc opens an association for the result, and there is no listener yet.
    row = delivery(plant, exam)
    assert (row["state"], row["attempts"]) == ("pending", 1)
    assert "awaited" in row["last_error"]
    assert len(orthanc.get("/instances")) == 1
    plant.deliver_now()
    listener = plant.app.listener()
    listener.start()
    try:
        plant.run()

        def delivered() -> bool:
            plant.sweep.tick()
            return bool(delivery(plant, exam)["state"] == "delivered")

        wait_for(delivered, "the commitment", 20)
    finally:
        listener.stop()
    assert plant.exam(exam.series_uid)["state"] == "reported"
    assert (delivery(plant, exam)["attempts"], delivery(plant, exam)["last_error"]) == (2, None)
    assert len(orthanc.get("/instances")) == 1


@contextmanager
def provider(answer: str) -> Iterator[tuple[int, list[str]]]:
    """A PACS that stores; it commits on the same association, or fails, or offers no commitment.

    next time: the result of one request comes with the next one.
    """
    stored: list[str] = []
    kept: list[CommitmentResult] = []
    answers: list[int | None] = []

    def on_store(event: Any) -> int:
        stored.append(event.request.AffectedSOPInstanceUID)
        return 0

    def on_action(event: Any) -> tuple[int, None]:
        asked = CommitmentRequest.read(event.action_information)
        if answer == "refused":
            return 0x0213, None
        if answer == "failed":
            result = CommitmentResult(asked.transaction_uid, (), tuple((each, 0x0110) for each in asked.references))
        else:
            result = CommitmentResult(asked.transaction_uid, asked.references)

        if answer == "next time" and not kept:
            kept.append(result)
            return 0, None

        def report() -> None:
            time.sleep(0.2)
            for each in (*kept, result):
                status, _reply = event.assoc.send_n_event_report(
                    each.dataset(), each.event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE
                )
                answers.append(status.get("Status"))

        threading.Thread(target=report).start()
        return 0, None

    entity = AE("ARCHIVE")
    for sop_class in (*SR_CLASSES, "1.2.840.10008.1.1", *([PUSH_MODEL] if answer != "not offered" else [])):
        entity.add_supported_context(sop_class)
    handlers: Any = [(evt.EVT_C_STORE, on_store), (evt.EVT_N_ACTION, on_action)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert isinstance(server, ThreadedAssociationServer)
    try:
        yield int(server.server_address[1]), stored
    finally:
        server.shutdown()
    assert set(answers) <= {0}


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        ("at once", "delivered", None),
        ("failed", "pending", "did not commit itself to the report (0x0110)"),
        ("refused", "pending", "answered the request for its commitment with 0x0213"),
        ("not offered", "pending", "offers no storage commitment"),
    ],
)
def test_a_destination_on_the_same_association(
    tmp_path: Path, database: Database, phantoms: Phantoms, answer: str, state: str, said: str | None
) -> None:
    exam = phantoms[1][0]
    with provider(answer) as (port, stored):
        plant = plant_with(tmp_path / "data", database, port, "ARCHIVE")
        plant.app.registry.import_bundle("demo", actor="test")
        plant.receive(*files(phantoms), age=60)
        plant.run()
        row = delivery(plant, exam)
        assert (row["state"], len(stored)) == (state, 1)
        assert (said or "") in (row["last_error"] or "")
        assert plant.exam(exam.series_uid)["state"] == ("reported" if said is None else "classified")
    if said is not None:
        with provider("at once") as (port, stored):
            again = plant_with(tmp_path / "data", database, port, "ARCHIVE")
            again.deliver_now()
            again.run()
            assert plant.exam(exam.series_uid)["state"] == "reported"


def test_the_result_of_an_earlier_request_on_our_association_counts(
    tmp_path: Path, database: Database, phantoms: Phantoms
) -> None:
    with provider("next time") as (port, stored):
        plant = plant_with(tmp_path / "data", database, port, "ARCHIVE")
        plant.app.registry.import_bundle("demo", actor="test")
        for exam in phantoms[1]:
            plant.receive(*sorted((phantoms[0] / exam.folder).glob("*.dcm")), age=60)
            plant.run()
        assert len(stored) == 2
        plant.sweep.tick()
        rows = [delivery(plant, exam) for exam in phantoms[1]]
        assert [(row["state"], row["last_error"], row["attempts"]) for row in rows] == [("delivered", None, 1)] * 2
        assert {plant.exam(exam.series_uid)["state"] for exam in phantoms[1]} == {"reported"}


def test_results_that_nobody_waits_for_change_nothing(tmp_path: Path, database: Database) -> None:
    plant = plant_with(tmp_path / "data", database, free_port(), "ARCHIVE")
    plant.app.commitments.put(CommitmentResult("1.2.3", (Reference("1.2", "1.2.4"),)))
    plant.sweep.tick()
    (kept,) = (tmp_path / "data" / "commitments" / "results").glob("*.json")
    os.utime(kept, (time.time() - 7200, time.time() - 7200))
    plant.sweep.tick()
    assert not kept.exists()
