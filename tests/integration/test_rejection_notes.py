"""Rejection notes that come for images: their exam is stopped, or its result taken back (IHE IOCM)."""

import os
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select

from pacs.destinations import DimseDestination
from pacs.errors import Refused
from pacs.report.reader import read_report
from pacs.report.rejection import (
    Grounds,
    RejectionNote,
)
from tests.installation import Installation
from tests.integration.test_rules import Site, reconstruction, uid
from tests.integration.test_rules import site as site  # noqa: PLC0414 – a fixture
from tests.plant import files
from tests.rejection import arrive, named, note_about, run, sent
from tests.servers import Orthanc, free_port, wait_for
from training.phantom import PhantomExam
from worker import exams, restart, retention, retraction
from worker.objects import sop_classes
from worker.rejections import RejectionNotes
from worker.sections import SelectionSettings
from worker.tables import RejectedInstance, Series
from worker.worklist import gather

Phantoms = tuple[Path, list[PhantomExam]]


def test_rejected_images_take_the_result_back_and_the_others_speak(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.run()
    (first,) = sent(here, "SR")
    arrive(here.plant, note_about(paths[:3]))
    here.plant.run()
    here.plant.run()
    (note,) = sent(here, "KO")
    assert named(note) == {str(first.SOPInstanceUID)}
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    _first, second = sent(here, "SR")
    rejected = {str(dcmread(path).SOPInstanceUID) for path in paths[:3]}
    assert not read_report(second).sop_uids & rejected
    assert read_report(second).replaces == frozenset()
    shown = here.plant.exam(uid(paths))
    assert (shown["revision"], shown["state"], shown["slice_count"]) == (2, "reported", len(paths) - 3)
    # The note again, and the images again, change nothing.
    arrive(here.plant, note_about(paths[:3]))
    here.plant.receive(*paths[:3], age=60)
    here.plant.run()
    assert here.plant.exam(uid(paths))["revision"] == 2
    assert (len(sent(here, "SR")), len(sent(here, "KO"))) == (2, 1)
    assert here.plant.app.spool.notes() == []


def test_a_series_of_which_nothing_is_left_calls_the_next_one(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    lung = files(phantoms)
    soft = reconstruction(tmp_path, lung[:-2], 5)
    here = site()
    here.plant.receive(*lung, *soft, age=60)
    here.plant.run()
    assert here.plant.exam(uid(soft))["reason_code"] == "not_preferred"
    arrive(here.plant, note_about(lung))
    here.plant.run()
    here.plant.run()
    gone = here.plant.exam(uid(lung))
    assert (gone["state"], gone["reason_code"]) == ("rejected", "source_rejected")
    assert here.plant.exam(uid(soft))["state"] == "reported"
    assert read_report(sent(here, "SR")[-1]).series_uids == {uid(soft)}


def test_a_note_that_comes_before_its_images_is_remembered(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site()
    arrive(here.plant, note_about(paths[:2]))
    here.plant.sweep.tick()
    here.plant.receive(*paths, age=60)
    here.plant.run()
    (report,) = sent(here, "SR")
    assert not read_report(report).sop_uids & {str(dcmread(path).SOPInstanceUID) for path in paths[:2]}
    assert sent(here, "KO") == []


def test_an_exam_that_is_rejected_while_it_waits_is_stopped(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.sweep.tick()
    arrive(here.plant, note_about(paths))
    here.plant.run()
    shown = here.plant.exam(uid(paths))
    assert (shown["state"], shown["reason_code"]) == ("rejected", "source_rejected")
    assert list(here.archive.rglob("*.dcm")) == []


def test_a_note_waits_while_its_exam_is_classified_and_is_not_lost(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.sweep.tick()
    held = exams.claim(here.plant.database, here.plant.settings.data_dir, "another")
    assert held is not None
    arrive(here.plant, note_about(paths))
    here.plant.sweep.tick()
    assert len(here.plant.app.spool.notes()) == 1
    with here.plant.database.read() as session:
        assert session.scalars(select(RejectedInstance)).all() == []
    exams.end_leases(here.plant.database, "another")
    here.plant.run()
    here.plant.run()
    assert here.plant.exam(uid(paths))["reason_code"] == "source_rejected"
    assert here.plant.app.spool.notes() == []


@pytest.mark.parametrize("content", ["retention", "teaching", "garbage", "ignored"])
def test_what_rejects_nothing_changes_nothing(site: Callable[..., Site], phantoms: Phantoms, content: str) -> None:
    paths = files(phantoms)
    here = site(**({"listener": {"rejection_notes": "ignore"}} if content == "ignored" else {}))
    here.plant.receive(*paths, age=60)
    here.plant.run()
    grounds = Grounds.RETENTION if content == "retention" else Grounds.QUALITY
    note = dcmread(BytesIO(note_about(paths, Grounds.QUALITY)))
    note.ConceptNameCodeSequence[0].CodeValue = {"teaching": "113004"}.get(content, grounds.value)
    if content == "garbage":
        del note.CurrentRequestedProcedureEvidenceSequence
    buffer = BytesIO()
    note.save_as(buffer)
    arrive(here.plant, buffer.getvalue())
    here.plant.run()
    assert here.plant.exam(uid(paths))["state"] == "reported"
    assert sent(here, "KO") == []
    assert here.plant.app.spool.notes() == []
    assert list((here.plant.app.spool.root / "aside").rglob("*.dcm"))


def test_our_own_note_that_comes_back_starts_nothing(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.run()
    retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    here.plant.run()
    (file,) = (path for path in here.archive.rglob("*.dcm") if dcmread(path).Modality == "KO")
    arrive(here.plant, file.read_bytes())
    here.plant.run()
    assert here.plant.exam(uid(paths))["revision"] == 1
    assert len(sent(here, "KO")) == 1


def test_an_erased_exam_forgets_what_was_rejected_of_it(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.run()
    arrive(here.plant, note_about(paths))
    here.plant.run()
    retention.forget(here.plant.database, here.plant.settings.data_dir, uid(paths), actor="ana")
    with here.plant.database.read() as session:
        assert session.scalars(select(RejectedInstance)).all() == []
        assert session.scalars(select(Series)).all() == []


def test_a_pacs_routes_images_and_notes_to_us_and_has_our_results_taken_back(
    tmp_path: Path, phantoms: Phantoms
) -> None:
    """Orthanc routes to the listener by C-STORE, is asked for the worklist, and takes reports and notes."""
    pacs = Orthanc(tmp_path / "pacs")
    port = free_port()
    pacs.modalities = {"reticula": ["RETICULA", "127.0.0.1", port]}
    pacs.start()
    installation = Installation(
        tmp_path / "site",
        '\n[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\n'
        f'port = {pacs.port}\nae_title = "ORTHANC"\n'
        f'[[sources]]\nname = "pacs"\nkind = "dicomweb"\nurl = "{pacs.dicomweb}"\n',
        RETICULA_LISTENER__PORT=str(port),
    )
    installation.prepare()
    try:
        installation.start("up")
        one, other = files(phantoms, 0), files(phantoms, 1)
        for paths in (one, other):
            route(pacs, *(path.read_bytes() for path in paths))
        installation.wait_for_state(uid(one), "reported")
        installation.wait_for_state(uid(other), "reported")
        listed = installation.json("worklist", "--days", "36500")
        assert {row["series_uids"][0] for row in listed} == {uid(one), uid(other)}

        asked = installation.run("exams", "retract", uid(one), "--because", "safety", "--yes")
        assert asked.stdout.startswith(f"The result of series {uid(one)} is taken back. A rejection note goes to pacs")
        route(pacs, note_about(other))
        wait_for(lambda: len(notes(pacs)) == 3, "two notes of ours, beside the one of the PACS", 90)
        assert installation.json("worklist", "--days", "36500") == []
        shown = {row["series_uid"]: (row["state"], row["reason_code"]) for row in installation.json("exams", "list")}
        assert shown == {uid(one): ("rejected", "retracted"), uid(other): ("rejected", "source_rejected")}
        again = installation.run("exams", "retract", uid(one), "--because", "safety", "--yes", check=False)
        assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    finally:
        installation.close()
        pacs.stop()


def route(pacs: Orthanc, *contents: bytes) -> None:
    """Put instances into the PACS and have it send them to the listener, in one association."""
    address = f"http://127.0.0.1:{pacs.http}"
    stored = [requests.post(f"{address}/instances", data=content, timeout=30).json()["ID"] for content in contents]
    answer = requests.post(f"{address}/modalities/reticula/store", json={"Resources": stored}, timeout=60)
    assert answer.json()["FailedInstancesCount"] == 0


def notes(pacs: Orthanc) -> list[Any]:
    query = {"Level": "Series", "Query": {"Modality": "KO"}}
    found = requests.post(f"http://127.0.0.1:{pacs.http}/tools/find", json=query, timeout=20).json()
    return [instance for series in found for instance in pacs.get(f"/series/{series}")["Instances"]]


def test_every_note_counts(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site(selection=SelectionSettings(min_slices=3))
    here.plant.receive(*paths[:-2], age=60)
    run(here)
    for first in (0, 2):
        arrive(here.plant, note_about(paths[first : first + 2]))
        run(here)
    rejected = {str(dcmread(path).SOPInstanceUID) for path in paths[:4]}
    assert not read_report(sent(here, "SR")[-1]).sop_uids & rejected
    assert (len(sent(here, "SR")), len(sent(here, "KO"))) == (3, 2)
    here.plant.receive(*paths[-2:], age=60)
    run(here)
    assert here.plant.exam(uid(paths))["slice_count"] == len(paths) - 4
    with here.plant.database.read() as session:
        counts = session.scalars(select(Series.instance_count).order_by(Series.revision)).all()
    assert counts == [len(paths) - 2, len(paths) - 4, len(paths) - 6, len(paths) - 4]


def test_a_note_counts_after_a_result_was_taken_back_and_said_again(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    run(here)
    retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    run(here)
    restart.reprocess(here.plant.database, here.plant.settings.data_dir, uid(paths), actor="ana")
    run(here)
    arrive(here.plant, note_about(paths))
    run(here)
    assert here.plant.exam(uid(paths))["reason_code"] == "source_rejected"
    assert len(sent(here, "KO")) == 2


def test_a_note_that_comes_with_late_slices_takes_the_earlier_report_back(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths[:-2], age=60)
    run(here)
    here.plant.receive(*paths[-2:])
    here.plant.sweep.tick()
    assert here.plant.exam(uid(paths))["state"] == "receiving"
    arrive(here.plant, note_about(paths))
    run(here)
    assert len(sent(here, "KO")) == 1
    for path in (here.plant.app.spool.root / "series").rglob("*.dcm"):
        os.utime(path, (time.time() - 60, time.time() - 60))
    here.plant.sweep = here.plant.app.sweep()
    run(here)
    late = here.plant.exam(uid(paths))
    assert (late["revision"], late["state"], late["reason_code"]) == (2, "rejected", "source_rejected")


def test_a_refused_note_about_an_earlier_revision_is_seen(
    site: Callable[..., Site], phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    run(here)
    arrive(here.plant, note_about(paths[:2]))
    deliver = DimseDestination.deliver

    def refuse(self: DimseDestination, offer: Any) -> Any:
        if offer.sop_classes == sop_classes("retraction"):
            raise Refused("The PACS takes no Key Object Selection.")
        return deliver(self, offer)

    with monkeypatch.context() as patch:
        patch.setattr(DimseDestination, "deliver", refuse)
        run(here)
    exam = here.plant.exam(uid(paths))
    assert exam["state"] == "reported"
    assert [row["state"] for row in exam["deliveries"] if row["object"] == "retraction"] == ["refused"]
    restart.retry(here.plant.database, uid(paths), actor="ana")
    run(here)
    assert len(sent(here, "KO")) == 1
    assert here.plant.exam(uid(paths))["state"] == "reported"


def test_one_odd_note_keeps_no_other_waiting(
    site: Callable[..., Site], phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    run(here)
    odd = note_about(paths[:1])
    arrive(here.plant, odd)
    arrive(here.plant, note_about(paths))
    apply = RejectionNotes._apply

    def fail(self: RejectionNotes, note: RejectionNote) -> None:
        if note.sop_uid == str(dcmread(BytesIO(odd)).SOPInstanceUID):
            raise ValueError("odd")
        apply(self, note)

    monkeypatch.setattr(RejectionNotes, "_apply", fail)
    run(here)
    assert here.plant.exam(uid(paths))["reason_code"] == "source_rejected"
    assert len(here.plant.app.spool.notes()) == 1


def test_a_note_may_be_long(site: Callable[..., Site], phantoms: Phantoms) -> None:
    """Longer than a database takes values in one question."""
    paths = files(phantoms)
    here = site()
    here.plant.receive(*paths, age=60)
    run(here)
    note = dcmread(BytesIO(note_about(paths)))
    listed = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    for number in range(70000):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = listed[0].ReferencedSOPClassUID, f"1.2.3.{number}"
        listed.append(item)
    buffer = BytesIO()
    note.save_as(buffer)
    arrive(here.plant, buffer.getvalue())
    run(here)
    assert here.plant.app.spool.notes() == []
    assert here.plant.exam(uid(paths))["reason_code"] == "source_rejected"


def test_the_worklist_shows_again_what_a_report_that_was_taken_back_replaced(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    whole = files(phantoms)
    here = site()
    soft = reconstruction(tmp_path, whole, 1, ConvolutionKernel="B30f", SliceThickness="1")
    thin = reconstruction(tmp_path, whole, 3, ConvolutionKernel="B70f", SliceThickness="1")
    for paths in (soft, thin):
        here.plant.receive(*paths, age=60)
        run(here)
    assert read_report(sent(here, "SR")[1]).replaces
    arrive(here.plant, note_about(thin))
    run(here)

    class Pacs:
        def studies(self, _query: Any) -> list[Any]:
            return [SimpleNamespace(study_uid="1.2")]

        def series(self, _study: str) -> list[Any]:
            return [SimpleNamespace(series_uid=modality, modality=modality) for modality in ("SR", "KO")]

        def read(self, series: Any) -> list[Dataset]:
            return sent(here, series.modality)

    pacs: Any = Pacs()
    (entry,) = gather(pacs, "20200101-", None).entries
    assert entry.report.series_uids == {uid(soft)}
