"""Rules at work: scope, preference within a study, shadow, pause and drain."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import update

from pacs.archive import Archive
from pacs.listener import Listener
from pacs.report.reader import read_report
from tests.installation import Installation, send
from tests.plant import Plant, files
from training.phantom import PhantomExam
from worker import exams, restart
from worker.database import Database
from worker.sections import DeliverySettings, RuleSettings, SelectionSettings
from worker.states import State
from worker.tables import AuditEvent, Series

Phantoms = tuple[Path, list[PhantomExam]]


class Site:
    """A plant with an archive."""

    def __init__(self, folder: Path, database: Database, listener: dict[str, Any] | None = None, **more: Any) -> None:
        self.archive = folder / "archive"
        self.listener = Listener(Archive(self.archive), ae_title="ARCHIVE", host="127.0.0.1", port=0)
        self.listener.start()
        self.plant = Plant(folder / "data", database, self.listener.port, more=more, **(listener or {}))
        self.plant.app.registry.import_bundle("demo", actor="test")

    def reports(self) -> dict[str, Any]:
        """Reports by the series that they are about."""
        found = {}
        for path in self.archive.rglob("*.dcm"):
            dataset = dcmread(path)
            (series,) = read_report(dataset).series_uids
            found[series] = dataset
        return found


@pytest.fixture
def site(tmp_path: Path, database: Database) -> Any:
    made: list[Site] = []

    def make(**more: Any) -> Site:
        made.append(Site(tmp_path / f"site-{len(made)}", database, **more))
        return made[-1]

    yield make
    for each in made:
        each.listener.stop()


def reconstruction(folder: Path, source: list[Path], number: int, every: int = 1, **values: Any) -> list[Path]:
    """Return another series of the same study, of every so manieth slice."""
    target = folder / f"recon-{number}"
    target.mkdir()
    paths = []
    for index, path in enumerate(source[::every]):
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID}.{number}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[path.name, str(number), str(folder)]
        )
        dataset.SeriesNumber = number
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        paths.append(target / f"{index}.dcm")
        dataset.save_as(paths[-1])
    return paths


def said(report: Dataset) -> set[str]:
    """Return every text and every meaning of a code."""
    return {str(element.value) for element in report.iterall() if element.keyword in ("TextValue", "CodeMeaning")}


def uid(paths: list[Path]) -> str:
    return str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)


def test_the_scope_is_kept_and_the_report_says_whether_there_was_one(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    chosen, stranger = files(phantoms, 0), files(phantoms, 1)
    patient = str(dcmread(chosen[0]).PatientID)
    here = site(rules=(RuleSettings(name="clinic", does="scope", patients=(patient,)),))
    here.plant.receive(*chosen, *stranger, age=60)
    here.plant.run()
    taken, left = here.plant.exam(uid(chosen)), here.plant.exam(uid(stranger))
    assert (taken["state"], taken["scope_rule"]) == ("reported", "clinic")
    assert (left["state"], left["reason_code"]) == ("rejected", "out_of_scope")
    (report,) = here.reports().values()
    assert {"Chosen by a rule of the hospital", "scope rule clinic"} <= said(report)


def test_without_rules_the_report_says_that_the_disease_was_not_confirmed(
    site: Callable[..., Site], phantoms: Phantoms
) -> None:
    here = site(rules=(RuleSettings(name="er", does="urgent", senders=("ER",)),))
    here.plant.receive(*files(phantoms), age=60)
    here.plant.run()
    (report,) = here.reports().values()
    assert "Nobody told that systemic sclerosis is present" in said(report)
    assert here.plant.exam(uid(files(phantoms)))["urgent"] is False


def test_a_rule_puts_an_exam_ahead(site: Callable[..., Site], phantoms: Phantoms) -> None:
    first, second = files(phantoms, 0), files(phantoms, 1)
    description = str(dcmread(second[0]).StudyInstanceUID)
    here = site(rules=(RuleSettings(name="er", does="urgent", patients=(str(dcmread(second[0]).PatientID),)),))
    here.plant.receive(*first, age=90)
    here.plant.sweep.tick()
    here.plant.receive(*second, age=60)
    here.plant.sweep.tick()
    assert description
    assert here.plant.exam(uid(second))["urgent"]
    claimed = exams.claim(here.plant.database, here.plant.settings.data_dir, "me")
    assert claimed is not None
    assert claimed.series_uid == uid(second)


def test_one_series_speaks_for_the_study_and_the_others_are_kept(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    here = site()
    soft = reconstruction(tmp_path, files(phantoms), 1, ConvolutionKernel="B30f", SliceThickness="1")
    thick = reconstruction(tmp_path, files(phantoms), 2, ConvolutionKernel="B70f", SliceThickness="3")
    thin = reconstruction(tmp_path, files(phantoms), 3, ConvolutionKernel="B70f", SliceThickness="1")
    for paths in (soft, thick, thin):
        here.plant.receive(*paths, age=60)
    here.plant.run()
    states = {number: here.plant.exam(uid(paths)) for number, paths in enumerate((soft, thick, thin))}
    assert [states[number]["state"] for number in range(3)] == ["rejected", "rejected", "reported"]
    for number in (0, 1):
        assert states[number]["reason_code"] == "not_preferred"
        assert states[number]["reason"] == (
            f"Series {uid(thin)} speaks for this study (lung kernel, 1 mm, {len(thin)} slices)."
        )
    assert set(here.reports()) == {uid(thin)}
    # Asked for by hand it is still set aside: the study has its report.
    restart.retry(here.plant.database, uid(soft), actor="ana")
    here.plant.run()
    assert here.plant.exam(uid(soft))["reason_code"] == "not_preferred"


def test_all_series_are_classified_by_setting(site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path) -> None:
    here = site(selection=SelectionSettings(others="classify"))
    soft = reconstruction(tmp_path, files(phantoms), 1, ConvolutionKernel="B30f")
    thin = reconstruction(tmp_path, files(phantoms), 3, ConvolutionKernel="B70f")
    here.plant.receive(*soft, *thin, age=60)
    here.plant.run()
    assert {uid(soft), uid(thin)} == set(here.reports())


def test_an_exam_waits_for_series_of_its_study_that_still_come_in(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    here = site()
    soft = reconstruction(tmp_path, files(phantoms), 1, ConvolutionKernel="B30f", SliceThickness="5")
    thin = reconstruction(tmp_path, files(phantoms), 2, ConvolutionKernel="B70f", SliceThickness="1")
    here.plant.receive(*soft, age=60)
    here.plant.receive(*thin[:3])
    here.plant.run()
    assert here.plant.exam(uid(soft))["state"] == "queued"
    with here.plant.database.write() as session:
        session.execute(update(Series).values(woken_at=None))
    here.plant.receive(*thin[3:], age=60)
    for path in (here.plant.settings.data_dir / "spool" / "series").rglob("*.dcm"):
        os.utime(path, (time.time() - 60, time.time() - 60))
    here.plant.run()
    assert here.plant.exam(uid(soft))["reason_code"] == "not_preferred"
    assert here.plant.exam(uid(thin))["state"] == "reported"


def test_where_the_preferred_one_cannot_be_used_the_next_one_speaks(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    here = site()
    soft = reconstruction(tmp_path, files(phantoms), 1, ConvolutionKernel="B30f", SliceThickness="1")
    sagittal = reconstruction(
        tmp_path, files(phantoms), 2, ConvolutionKernel="B70f", SliceThickness="1",
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )  # fmt: skip
    here.plant.receive(*soft, *sagittal, age=60)
    here.plant.run()
    assert here.plant.exam(uid(sagittal))["reason_code"] == "not_axial"
    assert here.plant.exam(uid(soft))["state"] == "reported"


def test_a_late_slice_that_comes_to_nothing_brings_no_second_report(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    here = site()
    soft = reconstruction(tmp_path, files(phantoms), 1, ConvolutionKernel="B30f", SliceThickness="5")
    thin = reconstruction(tmp_path, files(phantoms), 2, ConvolutionKernel="B70f", SliceThickness="1")
    here.plant.receive(*soft, *thin[:-1], age=60)
    here.plant.run()
    assert here.plant.exam(uid(thin))["state"] == "reported"
    for path in (here.plant.settings.data_dir / "spool" / "series").rglob(f"{dcmread(thin[0]).SOPInstanceUID}.dcm"):
        path.unlink()
    here.plant.receive(thin[-1], age=60)
    here.plant.run()
    assert here.plant.exam(uid(thin))["reason_code"] == "missing_files"
    assert here.plant.exam(uid(soft))["reason_code"] == "not_preferred"
    assert set(here.reports()) == {uid(thin)}


def test_whoever_lost_to_a_series_that_fails_meanwhile_speaks(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers: one finds the other preferred, and that one is rejected before the first has said so."""
    here = site()
    soft = reconstruction(tmp_path, files(phantoms), 1, ConvolutionKernel="B30f")
    sagittal = reconstruction(
        tmp_path, files(phantoms), 2, ConvolutionKernel="B70f", ImageOrientationPatient=[0, 1, 0, 0, 0, -1]
    )
    here.plant.receive(*soft, age=90)
    here.plant.receive(*sagittal, age=60)
    here.plant.sweep.tick()
    first, second = here.plant.app.classification(), here.plant.app.classification()
    choose, began = first._choice.choose, [False]

    def slowly(held: Any, header: Any) -> Any:
        try:
            return choose(held, header)
        finally:
            if not began[0]:
                began[0] = True
                assert second.run_one("second")

    monkeypatch.setattr(first._choice, "choose", slowly)
    assert first.run_one("first")
    here.plant.run()
    assert here.plant.exam(uid(sagittal))["reason_code"] == "not_axial"
    assert here.plant.exam(uid(soft))["state"] == "reported"


def test_a_list_of_patients_that_is_away_costs_no_exam(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    listed = tmp_path / "patients.txt"
    here = site(rules=(RuleSettings(name="clinic", does="scope", patients_file=listed),))
    here.plant.receive(*files(phantoms), age=60)
    series = uid(files(phantoms))
    here.plant.sweep.tick()
    for _ in range(5):
        with here.plant.database.write() as session:
            session.execute(update(Series).values(not_before=None))
        here.plant.app.classification().run_one("worker")
    waits = here.plant.exam(series)
    assert (waits["state"], waits["reason_code"]) == ("queued", "settings")
    assert "cannot be read" in waits["reason"]
    listed.write_text(str(dcmread(files(phantoms)[0]).PatientID), encoding="utf-8")
    with here.plant.database.write() as session:
        session.execute(update(Series).values(not_before=None, woken_at=None))
    here.plant.run()
    assert here.plant.exam(series)["scope_rule"] == "clinic"


def test_a_better_series_that_comes_late_replaces_the_report(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    here = site()
    soft = reconstruction(tmp_path, files(phantoms), 1, ConvolutionKernel="B30f", SliceThickness="5")
    thin = reconstruction(tmp_path, files(phantoms), 2, ConvolutionKernel="B70f", SliceThickness="1")
    here.plant.receive(*soft, age=60)
    here.plant.run()
    here.plant.receive(*thin, age=60)
    here.plant.run()
    reports = here.reports()
    assert set(reports) == {uid(soft), uid(thin)}
    (study,) = reports[uid(thin)].PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == reports[uid(soft)].SOPInstanceUID
    assert series.SeriesInstanceUID == reports[uid(soft)].SeriesInstanceUID


def test_in_shadow_nothing_is_sent_until_somebody_asks(site: Callable[..., Site], phantoms: Phantoms) -> None:
    here = site(delivery=DeliverySettings(shadow=True))
    here.plant.receive(*files(phantoms), age=60)
    here.plant.run()
    exam = here.plant.exam(uid(files(phantoms)))
    assert (exam["state"], exam["shadow"], exam["deliveries"]) == ("classified", True, [])
    assert here.reports() == {}
    # What was classified in shadow stays there when shadow ends.
    plain = Plant(here.plant.settings.data_dir, here.plant.database, here.listener.port)
    plain.run()
    assert here.reports() == {}
    restart.resend(here.plant.database, uid(files(phantoms)), actor="ana")
    plain.run()
    assert set(here.reports()) == {uid(files(phantoms))}
    assert here.plant.exam(uid(files(phantoms)))["state"] == State.REPORTED


def test_rules_test_says_which_rule_decides(phantoms: Phantoms, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    soft = reconstruction(folder, files(phantoms), 1, ConvolutionKernel="B30f")
    thin = reconstruction(folder, files(phantoms), 2, ConvolutionKernel="B70f")
    scout = reconstruction(folder, files(phantoms), 3, every=10)
    shutil.copytree(phantoms[0] / phantoms[1][1].folder, folder / "other")
    (folder / "note.txt").write_text("no DICOM", encoding="utf-8")
    patient = str(dcmread(soft[0]).PatientID)
    installation = Installation(
        tmp_path / "installation",
        f'\n[[rules]]\nname = "clinic"\ndoes = "scope"\npatients = ["{patient}"]\n'
        '[[rules]]\nname = "er"\ndoes = "urgent"\nkernels = ["b30*"]\n',
    )
    rows = {row["series_uid"]: row for row in installation.json("rules", "test", str(folder))}
    assert (rows[uid(thin)]["taken"], rows[uid(thin)]["rule"]) == (True, "clinic")
    assert (rows[uid(soft)]["reason_code"], rows[uid(soft)]["urgent_by"]) == ("not_preferred", "er")
    assert rows[uid(scout)]["reason_code"] == "too_few_slices"
    assert rows[uid(files(phantoms, 1))]["reason_code"] == "out_of_scope"
    said = installation.run("rules", "test", str(folder))
    assert "speaks for this study" in said.stdout
    assert "1 files are no DICOM" in said.stderr
    assert [rule["name"] for rule in installation.json("rules", "list")] == ["clinic", "er"]
    nothing = installation.run("rules", "test", str(folder / "note.txt"), check=False)
    assert (nothing.returncode, "no DICOM series" in nothing.stderr) == (1, True)
    assert not (installation.data / "reticula.sqlite3").exists()


def test_pause_and_drain(phantoms: Phantoms, tmp_path: Path, dcmtk: dict[str, str]) -> None:
    installation = Installation(tmp_path / "installation")
    try:
        installation.prepare()
        installation.run("pause")
        installation.start("up")
        assert send(dcmtk["storescu"], installation.port, *files(phantoms)).returncode == 0
        series = uid(files(phantoms))
        installation.wait_for_state(series, "queued")
        assert "work paused by" in installation.run("check", check=False).stdout
        stuck = installation.run("drain", "--wait", "1", check=False)
        assert (stuck.returncode, "Work is paused" in stuck.stderr) == (1, True)
        refused = send(dcmtk["storescu"], installation.port, *files(phantoms, 1))
        assert refused.returncode != 0
        assert "closed by an administrator" in installation.log("up")
        assert installation.exams()[series]["state"] == "queued"
        installation.run("resume")
        installation.wait_for_state(series, "classified")
        done = installation.run("drain", "--wait", "60")
        assert "Nothing is left to do" in done.stdout
        installation.run("resume")
        assert "Nothing was stopped" in installation.run("resume").stdout
        assert send(dcmtk["storescu"], installation.port, *files(phantoms, 1)).returncode == 0
    finally:
        installation.close()
    with installation._database.read() as session:
        actions = [event.action for event in session.query(AuditEvent)]
    assert json.dumps(actions).count("application") >= 3
