"""The notice that a study has no result: when it goes out, what it says, and what replaces it."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select, update

from pacs.archive import Archive
from pacs.codes import LANGUAGES, Language, translation
from pacs.listener import Listener
from pacs.meanings import PRIVATE_SCHEME
from pacs.report import SR_CLASSES
from pacs.report.reader import read_report
from pacs.report.rejection import Grounds
from tests.integration.test_rules import Site, reconstruction, said, uid
from tests.integration.test_rules import site as site  # noqa: PLC0414 – a fixture
from tests.plant import files
from tests.rejection import arrive, note_about
from tests.report_checks import check_object_with_tools
from training.phantom import PhantomExam
from worker import notices, restart, retraction
from worker.database import now
from worker.sections import DeliverySettings, RuleSettings, SelectionSettings
from worker.tables import Delivery, Series

Phantoms = tuple[Path, list[PhantomExam]]
AT_ONCE = DeliverySettings(rejections=True, rejections_after_seconds=0)


def sent(here: Site) -> list[Path]:
    """What the archive has, in the order in which it came."""
    return sorted(here.archive.rglob("*.dcm"), key=lambda path: path.stat().st_mtime_ns)


def notice_of(here: Site) -> Dataset:
    (path,) = sent(here)
    return dcmread(path)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_study_that_came_to_nothing_gets_one_notice_with_the_reason(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path, language: Language
) -> None:
    few = files(phantoms)[:5]
    fewer = reconstruction(tmp_path, few, 7, every=2)
    here = site(delivery=AT_ONCE, language=language)
    here.plant.receive(*few, *fewer, age=60)
    here.plant.run()
    here.plant.run()
    notice = notice_of(here)
    source = dcmread(few[0])
    assert (notice.PatientID, notice.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert (notice.Modality, notice.SeriesNumber) == ("SR", 990)
    assert notice.ConceptNameCodeSequence[0].CodeValue == "24627-2"  # not 126000: viewers would look for measurements
    reason = translation("too_few_slices", PRIVATE_SCHEME, language)
    assert reason is not None
    assert any(sentence.endswith(f" {reason}.") for sentence in said(notice))
    (evidence,) = notice.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert evidence.SeriesInstanceUID == uid(few)
    assert len(evidence.ReferencedSOPSequence) == 5
    check_object_with_tools(sent(here)[0], few)
    shown = here.plant.exam(uid(few))
    assert (shown["state"], shown["reason_code"]) == ("rejected", "too_few_slices")
    assert [(row["object"], row["state"]) for row in shown["deliveries"]] == [("notice", "delivered")]
    assert here.plant.exam(uid(fewer))["deliveries"] == []


def test_a_failed_exam_is_told_as_such(site: Callable[..., Site], phantoms: Phantoms) -> None:
    here = site(delivery=AT_ONCE)
    here.plant.receive(*files(phantoms), age=60)
    here.plant.sweep.tick()
    with here.plant.database.write() as session:
        session.execute(
            update(Series).values(state="failed", reason_code="memory", reason="Too large.", ended_at=now())
        )
    here.plant.run()
    assert {"Failed", "The series is too large"} <= said(notice_of(here))


def test_every_reason_that_is_told_has_a_sentence_in_every_language() -> None:
    for reason in notices.REASONS:
        for language in LANGUAGES:
            known = translation(reason, PRIVATE_SCHEME, language)
            assert known, (reason, language)
            assert len(known) <= 64  # PS3.5: LO


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"delivery": DeliverySettings(rejections=True, rejections_after_seconds=0, shadow=True)},
        {"delivery": DeliverySettings(rejections=True, rejections_after_seconds=600)},
        {"delivery": AT_ONCE, "rules": (RuleSettings(name="none", does="scope", patients=("nobody",)),)},
    ],
    ids=["off", "shadow", "too early", "out of scope"],
)
def test_nobody_is_told(site: Callable[..., Site], phantoms: Phantoms, settings: dict[str, Any]) -> None:
    here = site(**settings)
    here.plant.receive(*files(phantoms)[:5], age=60)
    here.plant.run()
    here.plant.run()
    assert here.plant.exam(uid(files(phantoms)))["state"] == "rejected"
    assert sent(here) == []


def test_a_localizer_is_nothing_to_tell_of(site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path) -> None:
    here = site(delivery=AT_ONCE)
    scout = reconstruction(tmp_path, files(phantoms)[:2], 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    here.plant.receive(*scout, age=60)
    here.plant.run()
    assert here.plant.exam(uid(scout))["reason_code"] == "localizer"
    assert sent(here) == []


def test_no_notice_while_or_after_another_series_of_the_study_speaks(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    whole = files(phantoms)
    few = reconstruction(tmp_path, whole, 3, every=6)
    here = site(delivery=AT_ONCE)
    here.plant.receive(*whole, age=60)
    here.plant.receive(*few, age=60)
    here.plant.run()
    here.plant.run()
    (path,) = sent(here)
    assert read_report(dcmread(path)).series_uids == {uid(whole)}


def test_no_notice_under_a_patient_who_is_in_doubt(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    few = files(phantoms)[:5]
    other = reconstruction(tmp_path, few, 2, PatientID="SOMEBODY ELSE")
    here = site(delivery=AT_ONCE)
    here.plant.receive(*few, *other, age=60)
    here.plant.run()
    here.plant.run()
    assert {here.plant.exam(uid(paths))["reason_code"] for paths in (few, other)} == {"patient_conflict"}
    assert sent(here) == []


def test_what_ended_before_the_setting_was_made_is_not_told(site: Callable[..., Site], phantoms: Phantoms) -> None:
    before = site()
    before.plant.receive(*files(phantoms)[:5], age=60)
    before.plant.run()
    with before.plant.database.write() as session:
        session.execute(update(Series).values(ended_at=now() - timedelta(days=8)))
    with before.plant.database.read() as session:
        assert session.scalar(notices.due(timedelta())) is None


def test_the_report_of_late_slices_replaces_the_notice(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site(delivery=AT_ONCE)
    here.plant.receive(*paths[:5], age=60)
    here.plant.run()
    first = notice_of(here)
    here.plant.receive(*paths[5:], age=60)
    here.plant.run()
    notice, report = map(dcmread, sent(here))
    assert notice.SOPInstanceUID == first.SOPInstanceUID
    assert read_report(report).replaces == {str(first.SOPInstanceUID)}
    assert report.SeriesInstanceUID == first.SeriesInstanceUID


def test_a_notice_that_waits_for_the_pacs_is_overtaken_by_the_result(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    here = site(delivery=AT_ONCE)
    port = away(here)
    here.plant.receive(*paths[:5], age=60)
    here.plant.run()
    assert sent(here) == []
    here.plant.receive(*paths[5:], age=60)
    here.plant.run()
    back(here, port)
    (path,) = sent(here)
    report = read_report(dcmread(path))
    assert report.replaces == frozenset()
    assert len(report.sop_uids) > 5
    with here.plant.database.read() as session:
        (row,) = session.query(Delivery).filter_by(object="notice")
    assert (row.state, row.last_error) == ("refused", "It was true no longer when it could be sent.")


def test_a_notice_that_cannot_be_made_is_tried_once_and_says_why(site: Callable[..., Site], phantoms: Phantoms) -> None:
    here = site(delivery=AT_ONCE)
    here.plant.receive(*files(phantoms)[:5], age=60)
    here.plant.sweep.tick()
    here.plant.app.classification().run_one("worker")
    for path in here.plant.app.spool.root.rglob("*.dcm"):
        path.unlink()
    for _ in range(2):
        here.plant.run()
    assert sent(here) == []
    (row,) = here.plant.exam(uid(files(phantoms)))["deliveries"]
    assert row["state"] == "refused"
    assert row["last_error"] == "It cannot be made: No instance of this series could be read."


def test_two_deliverers_make_one_notice(site: Callable[..., Site], phantoms: Phantoms) -> None:
    here = site(delivery=AT_ONCE)
    here.plant.receive(*files(phantoms)[:5], age=60)
    here.plant.sweep.tick()
    here.plant.app.classification().run_one("worker")
    one, two = here.plant.app.delivery(), here.plant.app.delivery()
    for stage in (one, two, one, two):
        stage.run_one("worker")
    assert len(sent(here)) == 1


def away(here: Site) -> int:
    """Let the PACS go away; return its port."""
    here.listener.stop()
    return int(here.plant.settings.destinations[0].port)  # type: ignore[union-attr]


def back(here: Site, port: int) -> None:
    here.listener = Listener(Archive(here.archive), ae_title="ARCHIVE", host="127.0.0.1", port=port)
    here.listener.start()
    here.plant.deliver_now()
    for _ in range(3):
        here.plant.run()


def fail(here: Site, code: str) -> None:
    with here.plant.database.write() as session:
        ended = {"state": "failed", "reason_code": code, "reason": "By hand.", "ended_at": now()}
        session.execute(update(Series).values(**ended))


def classify(here: Site) -> None:
    here.plant.sweep.tick()
    while here.plant.app.classification().run_one("worker"):
        pass


@pytest.mark.parametrize("pacs", ["here", "away"])
def test_an_exam_that_had_a_notice_gets_its_report_after_all(
    site: Callable[..., Site], phantoms: Phantoms, pacs: str
) -> None:
    paths = files(phantoms)
    here = site(delivery=AT_ONCE)
    port = away(here)
    here.plant.receive(*paths, age=60)
    here.plant.sweep.tick()
    fail(here, "memory")
    if pacs == "here":
        back(here, port)
    here.plant.run()
    restart.retry(here.plant.database, uid(paths), actor="ana")
    classify(here)
    if pacs == "away":
        back(here, port)
    for _ in range(3):
        here.plant.run()
    assert here.plant.exam(uid(paths))["state"] == "reported"
    *before, report = map(dcmread, sent(here))
    assert len(before) == (pacs == "here")
    assert read_report(report).replaces == {str(notice.SOPInstanceUID) for notice in before}
    restart.resend(here.plant.database, uid(paths), actor="ana")
    here.plant.run()
    assert here.plant.exam(uid(paths))["state"] == "reported"


@pytest.mark.parametrize("killed", [False, True])
def test_a_notice_says_why_it_is_so_now(site: Callable[..., Site], phantoms: Phantoms, killed: bool) -> None:
    few = files(phantoms)[:5]
    here = site(delivery=AT_ONCE)
    here.plant.receive(*few, age=60)
    here.plant.sweep.tick()
    fail(here, "memory")
    stage = here.plant.app.delivery()
    if killed:  # between the document and its rows
        with here.plant.database.read() as session:
            (series_id,) = session.scalars(select(Series.id))
        stage._reports.document(series_id, SR_CLASSES[0], "notice")
    else:
        stage._prepare_notice()
    restart.retry(here.plant.database, uid(few), actor="ana")
    classify(here)
    for _ in range(3):
        here.plant.run()
    assert "The series is too large" not in said(notice_of(here))


def test_a_notice_that_waits_is_not_sent_when_the_patient_comes_into_doubt(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    few = files(phantoms)[:5]
    here = site(delivery=AT_ONCE)
    port = away(here)
    here.plant.receive(*few, age=60)
    here.plant.run()
    here.plant.receive(*reconstruction(tmp_path, few, 2, PatientID="SOMEBODY ELSE"), age=60)
    here.plant.run()
    back(here, port)
    assert sent(here) == []


def test_no_notice_where_nobody_compared_the_patients(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    few = files(phantoms)[:5]
    here = site(delivery=AT_ONCE)
    here.plant.receive(*few, *reconstruction(tmp_path, few, 2, PatientID="SOMEBODY ELSE"), age=60)
    here.plant.sweep.tick()
    fail(here, "worker_died")
    here.plant.run()
    assert sent(here) == []


def test_no_notice_about_images_that_were_rejected(site: Callable[..., Site], phantoms: Phantoms) -> None:
    few = files(phantoms)[:5]
    here = site(delivery=AT_ONCE)
    here.plant.receive(*few, age=60)
    classify(here)
    here.plant.app.delivery()._prepare_notice()
    arrive(here.plant, note_about(few, Grounds.WRONG_WORKLIST_ENTRY))
    for _ in range(3):
        here.plant.run()
    assert here.plant.exam(uid(few))["reason_code"] == "source_rejected"
    assert sent(here) == []


def test_no_notice_beside_a_result(site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path) -> None:
    """The report is at one PACS, another one refused it: then there is a result all the same."""
    whole = files(phantoms)
    here = site(delivery=AT_ONCE, selection=SelectionSettings(others="classify"))
    here.plant.receive(*whole, age=60)
    here.plant.run()
    fail(here, "delivery_refused")
    here.plant.receive(*reconstruction(tmp_path, whole, 3, every=6), age=60)
    here.plant.run()
    assert len(sent(here)) == 1


def test_a_result_whose_report_cannot_be_made_is_told_as_such(
    site: Callable[..., Site], phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site(delivery=AT_ONCE)
    here.plant.receive(*files(phantoms), age=60)
    classify(here)
    with monkeypatch.context() as patch:
        patch.setattr("worker.reports.build_report", lambda *_: 1 / 0)
        here.plant.app.delivery()._prepare_one()
    for _ in range(2):
        here.plant.run()
    sentences = said(notice_of(here))
    assert "The report of the result could not be made." in sentences
    assert not [sentence for sentence in sentences if sentence.startswith("No series")]


def test_what_the_rules_leave_out_is_not_told_where_it_died_before_they_were_asked(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    here = site(delivery=AT_ONCE, rules=(RuleSettings(name="none", does="scope", patients=("nobody",)),))
    here.plant.receive(*files(phantoms), age=60)
    here.plant.sweep.tick()
    fail(here, "worker_died")
    here.plant.run()
    assert sent(here) == []


def test_a_notice_that_was_taken_back_is_not_replaced(site: Callable[..., Site], phantoms: Phantoms) -> None:
    paths = files(phantoms)
    here = site(delivery=AT_ONCE)
    here.plant.receive(*paths[:5], age=60)
    here.plant.run()
    retraction.retract(here.plant.database, uid(paths), Grounds.SAFETY, actor="ana")
    here.plant.receive(*paths[5:], age=60)
    here.plant.run()
    restart.reprocess(here.plant.database, here.plant.settings.data_dir, uid(paths), actor="ana")
    here.plant.run()
    assert read_report(dcmread(sent(here)[-1])).replaces == frozenset()
