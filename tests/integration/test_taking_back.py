"""Results that a person takes back (IHE IOCM)."""

import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import select, update

from pacs.destinations import DimseDestination
from pacs.errors import Refused
from pacs.report.reader import read_report
from pacs.report.rejection import (
    Grounds,
)
from tests.integration.test_rules import Site, reconstruction, uid
from tests.integration.test_rules import site as site  # noqa: PLC0414 – a fixture
from tests.plant import files
from tests.rejection import classify, named, run, sent
from tests.report_checks import check_object_with_tools
from training.phantom import PhantomExam
from worker import exams, restart, retention, retraction
from worker.backup import back_up
from worker.commands.pause import _left as left_to_do
from worker.database import now
from worker.errors import BusyError, NotFoundError, WorkerError
from worker.sections import DestinationSettings
from worker.tables import AuditEvent, Delivery

Phantoms = tuple[Path, list[PhantomExam]]


def with_objects(here: Site, *objects: str) -> tuple[DestinationSettings, ...]:
    (known,) = here.plant.settings.destinations
    return (known.model_copy(update={"objects": ("sr", *objects)}),)


def test_everything_that_was_sent_is_taken_back_by_one_note(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.settings = here.plant.settings.model_copy(
        update={"destinations": with_objects(here, "summary", "heatmaps", "pdf")}
    )
    here.plant.app.settings = here.plant.settings
    here.plant.receive(*paths[:-4], age=60)
    here.plant.run()
    here.plant.receive(*paths[-4:], age=60)
    here.plant.run()
    before = [dcmread(path) for path in here.archive.rglob("*.dcm")]
    assert {dataset.Modality for dataset in before} == {"SR", "OT", "DOC"}
    assert len([dataset for dataset in before if dataset.Modality == "SR"]) == 2
    told = retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    assert told == ["pacs"]
    here.plant.run()
    (note,) = sent(here, "KO")
    assert note.ConceptNameCodeSequence[0].CodeValue == "113037"
    assert named(note) == {str(dataset.SOPInstanceUID) for dataset in before}
    where = {
        str(sop.ReferencedSOPInstanceUID): (str(series.SeriesInstanceUID), str(sop.ReferencedSOPClassUID))
        for series in note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }
    assert where == {str(each.SOPInstanceUID): (str(each.SeriesInstanceUID), str(each.SOPClassUID)) for each in before}
    assert (note.PatientID, note.StudyInstanceUID) == (before[0].PatientID, before[0].StudyInstanceUID)
    file = tmp_path / "note.dcm"
    note.save_as(file)
    check_object_with_tools(file, paths[:3])
    shown = here.plant.exam(uid(paths))
    assert (shown["state"], shown["reason_code"], shown["reason"]) == ("rejected", "retracted", "Taken back by ana.")
    assert shown["withdrawn_at"]
    assert [row["state"] for row in shown["deliveries"] if row["object"] == "retraction"] == ["delivered"]
    with here.plant.database.read() as session:
        (event,) = session.scalars(select(AuditEvent).where(AuditEvent.action == "result taken back"))
    assert (event.actor, event.detail["grounds"]) == ("ana", "113037")
    with pytest.raises(WorkerError, match="was taken back already"):
        retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")


def test_what_was_not_sent_yet_never_goes_out(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.sweep.tick()
    here.plant.app.classification().run_one("worker")
    here.plant.app.delivery()._prepare_one()
    assert retraction.retract(here.plant.database, uid(paths), Grounds.QUALITY, actor="ana") == []
    here.plant.deliver_now()
    here.plant.run()
    assert list(here.archive.rglob("*.dcm")) == []
    (row,) = here.plant.exam(uid(paths))["deliveries"]
    assert row["last_error"] == "The result was taken back."


def test_a_report_that_was_made_while_it_was_taken_back_gets_no_rows(
    site: Callable[..., Site], phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.sweep.tick()
    here.plant.app.classification().run_one("worker")
    stage = here.plant.app.delivery()
    make = stage._reports.document

    def slow(*arguments: Any) -> Any:
        made = make(*arguments)
        retraction.retract(here.plant.database, uid(paths), Grounds.QUALITY, actor="ana")
        return made

    monkeypatch.setattr(stage._reports, "document", slow)
    stage.run_one("worker")
    monkeypatch.undo()
    here.plant.run()
    assert list(here.archive.rglob("*.dcm")) == []
    assert here.plant.exam(uid(paths))["deliveries"] == []


def test_what_a_person_took_back_is_not_said_again_because_late_slices_come(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths[:-4], age=60)
    here.plant.run()
    retraction.retract(here.plant.database, uid(paths), Grounds.WRONG_WORKLIST_ENTRY, actor="ana")
    here.plant.run()
    here.plant.receive(*paths[-4:], age=60)
    here.plant.run()
    late = here.plant.exam(uid(paths))
    assert (late["revision"], late["state"], late["reason_code"]) == (2, "rejected", "retracted")
    assert late["reason"] == "Taken back by ana. To classify it again: 'reticula exams reprocess'."
    assert len(sent(here, "SR")) == 1
    restart.retry(here.plant.database, uid(paths), actor="ana")
    here.plant.run()
    assert here.plant.exam(uid(paths))["reason_code"] == "retracted"
    restart.reprocess(here.plant.database, here.plant.settings.data_dir, uid(paths), actor="ana")
    here.plant.run()
    assert here.plant.exam(uid(paths))["state"] == "reported"
    reports = sent(here, "SR")
    assert read_report(reports[-1]).replaces == frozenset()  # what was taken back is not replaced
    here.plant.receive(*reconstruction(here.archive.parent, paths[:1], 1, SeriesInstanceUID=uid(paths)), age=60)
    here.plant.run()
    assert here.plant.exam(uid(paths))["state"] == "reported"


def test_a_note_that_the_pacs_refuses_is_seen_and_can_be_tried_again(
    site: Callable[..., Site], phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.run()
    retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")

    def refuse(*_: Any) -> Any:
        raise Refused("The PACS takes no Key Object Selection.")

    with monkeypatch.context() as patch:
        patch.setattr(DimseDestination, "deliver", refuse)
        here.plant.run()
    shown = here.plant.exam(uid(paths))
    assert (shown["state"], shown["reason_code"]) == ("failed", "retraction_refused")
    assert "pacs refused the rejection note" in shown["reason"]
    assert shown["reason"].endswith("remove the objects there by hand.")
    restart.retry(here.plant.database, uid(paths), actor="ana")
    here.plant.run()
    assert len(sent(here, "KO")) == 1
    shown = here.plant.exam(uid(paths))
    assert (shown["state"], shown["reason"]) == ("rejected", "Taken back by ana.")


def test_only_what_is_at_rest_is_taken_back(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site()
    with pytest.raises(NotFoundError):
        retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    here.plant.receive(*paths, age=60)
    here.plant.sweep.tick()
    with pytest.raises(BusyError, match="is queued: wait until it is done"):
        retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    here.plant.run()
    with here.plant.database.write() as session:
        session.execute(update(Delivery).values(lease_owner="somebody", lease_until=now() + exams.LEASE))
    with pytest.raises(BusyError, match="is being sent: try it again in a minute"):
        retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")


def test_no_revision_of_a_result_that_was_taken_back_goes_out(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths[:-4], age=60)
    classify(here)
    here.plant.receive(*paths[-4:], age=60)
    classify(here)
    retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    run(here)
    assert list(here.archive.rglob("*.dcm")) == []
    # Nor does a destination that comes later change that.
    (known,) = here.plant.settings.destinations
    here.plant.app.settings = here.plant.settings.model_copy(
        update={"destinations": (known, known.model_copy(update={"name": "second"}))}
    )
    here.plant.app.__dict__.pop("destinations", None)
    here.plant.sweep = here.plant.app.sweep()
    run(here)
    assert list(here.archive.rglob("*.dcm")) == []
    assert left_to_do(here.plant.app) is None


def test_what_is_sent_again_was_sent(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    run(here)
    restart.resend(here.plant.database, uid(paths), actor="ana")
    assert retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana") == ["pacs"]
    assert left_to_do(here.plant.app) is not None, "a note is still to be sent"
    with pytest.raises(WorkerError, match="has not arrived yet"):
        retention.forget(here.plant.database, here.plant.settings.data_dir, uid(paths), actor="ana")
    with pytest.raises(WorkerError, match=r"was taken back already, on .* by ana\."):
        retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    run(here)
    assert len(sent(here, "KO")) == 1
    exam = here.plant.exam(uid(paths))
    assert (exam["verdict"], exam["certainty"], exam["probabilities"]) == (None, None, None)


def test_a_sender_that_hung_is_followed_by_the_note_again(
    site: Callable[..., Site], phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    classify(here)
    stage = here.plant.app.delivery()
    deliver = DimseDestination.deliver

    def hang(self: DimseDestination, offer: Any) -> Any:
        monkeypatch.setattr(DimseDestination, "deliver", deliver)
        with here.plant.database.write() as session:
            session.execute(update(Delivery).values(lease_until=now() - timedelta(seconds=1)))
        retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
        here.plant.run()
        assert list(here.archive.rglob("*.dcm")) == [], "the note waits for what may still be sent"
        return deliver(self, offer)

    monkeypatch.setattr(DimseDestination, "deliver", hang)
    while stage.run_one("worker"):
        pass
    run(here)
    assert (len(sent(here, "SR")), len(sent(here, "KO"))) == (1, 1)
    assert here.plant.exam(uid(paths))["state"] == "rejected"


def test_what_is_not_sent_yet_can_be_taken_back_after_a_restore(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    """The note names what an earlier revision sent, and takes the patient from it."""
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths[:-4], age=60)
    run(here)
    here.plant.receive(*paths[-4:], age=60)
    run(here)
    retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    kept = tmp_path / "backup.tar"
    back_up(here.plant.database, here.plant.settings.data_dir, kept)
    with tarfile.open(kept) as archive:
        assert sum("reports/" in name for name in archive.getnames()) == 2
