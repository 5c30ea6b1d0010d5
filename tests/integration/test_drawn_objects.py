"""What the PACS gets beside the report, once, and what becomes of it after a re-run: at a real PACS."""

import io
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
from pydicom import dcmread
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage
from sqlalchemy import update

from pacs.codes import LANGUAGES, Language
from pacs.errors import Unreadable
from pacs.report.reader import read_report
from tests.plant import Plant, files
from tests.servers import Orthanc
from training.phantom import PhantomExam
from worker import restart
from worker.database import Database
from worker.exams import latest
from worker.sections import DeliverySettings, DicomwebSettings, DimseSettings
from worker.summary import heat_map
from worker.summary.wording import WORDING
from worker.tables import Classification

Phantoms = tuple[Path, list[PhantomExam]]
ALL: tuple[Literal["summary", "heatmaps", "pdf"], ...] = ("summary", "heatmaps", "pdf")


@pytest.mark.parametrize("kind", ["dimse", "dicomweb"])
def test_the_pacs_gets_all_objects_once(
    tmp_path: Path, database: Database, phantoms: Phantoms, orthanc: Orthanc, kind: str
) -> None:
    destination = (
        DimseSettings(name="pacs", kind="dimse", host="127.0.0.1", port=orthanc.port, ae_title="ORTHANC", objects=ALL)
        if kind == "dimse"
        else DicomwebSettings(name="pacs", kind="dicomweb", url=orthanc.dicomweb, objects=ALL)
    )
    plant = Plant(tmp_path / "data", database, destinations=(destination,))
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*files(phantoms), age=60)
    plant.run()
    shown = plant.exam(phantoms[1][0].series_uid)
    assert shown["state"] == "reported"
    names = [row["object"] for row in shown["deliveries"]]
    maps = [f"heatmap-{number}" for number in range(1, len(names) - 2)]
    assert names == ["sr", "summary", *maps, "pdf"]
    found = [dcmread(io.BytesIO(orthanc.content(f"/instances/{each}/file"))) for each in orthanc.get("/instances")]
    assert {each.SOPInstanceUID for each in found} == {row["sop_uid"] for row in shown["deliveries"]}
    numbers = sorted({(int(each.SeriesNumber), str(each.SOPClassUID)) for each in found})
    assert [number for number, _class in numbers] == [980, 981, 982, 990]
    assert dict(numbers)[982] == EncapsulatedPDFStorage
    assert dict(numbers)[980] == SecondaryCaptureImageStorage


@pytest.mark.parametrize("research", [False, True])
def test_after_a_rerun_that_abstains_the_pacs_shows_no_evidence_and_a_mark_before_the_old_pictures(
    tmp_path: Path, database: Database, phantoms: Phantoms, orthanc: Orthanc, research: bool
) -> None:
    destination = DimseSettings(
        name="pacs", kind="dimse", host="127.0.0.1", port=orthanc.port, ae_title="ORTHANC", objects=ALL
    )
    delivery = DeliverySettings(research_probabilities=research)
    plant = Plant(tmp_path / "data", database, destinations=(destination,), more={"delivery": delivery})
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*files(phantoms), age=60)
    plant.run()
    uid = phantoms[1][0].series_uid
    restart.reprocess(database, plant.settings.data_dir, uid, actor="test")
    plant.sweep.tick()
    assert plant.app.classification().run_one("worker")
    with database.write() as session:  # as a model that is not sure leaves it
        newest = update(Classification).where(Classification.series_id == latest(session, uid).id)
        session.execute(newest.values(verdict="indeterminate", verdict_code="unfamiliar", verdict_reason="far"))
    plant.run()
    shown = plant.exam(uid)
    assert (shown["revision"], shown["state"], shown["certainty"]) == (2, "reported", None)
    names = [row["object"] for row in shown["deliveries"]]
    assert names == ["sr", "summary", "superseded-pages", "superseded-maps", "pdf"]
    assert {row["state"] for row in shown["deliveries"]} == {"delivered"}
    found = [dcmread(io.BytesIO(orthanc.content(f"/instances/{each}/file"))) for each in orthanc.get("/instances")]
    newest_uids = {row["object"]: row["sop_uid"] for row in shown["deliveries"]}
    for number, first in ((980, ["summary", "superseded-pages"]), (981, ["superseded-maps"])):
        series = sorted((each for each in found if each.SeriesNumber == number), key=lambda each: each.InstanceNumber)
        assert [each.SOPInstanceUID for each in series[: len(first)]] == [newest_uids[name] for name in first]
        assert len(series) > len(first), "what is superseded stays"
    report = read_report(next(each for each in found if each.SOPInstanceUID == newest_uids["sr"]))
    assert (report.certainty, report.reason_code, bool(report.probabilities)) == (None, "unfamiliar", research)
    said = {str(each.get("SeriesDescription")) for each in found if each.SOPInstanceUID in newest_uids.values()}
    assert all(each.startswith("AI abstains ") for each in said), said


def test_what_cannot_be_drawn_does_not_hold_up_the_report(
    tmp_path: Path, database: Database, phantoms: Phantoms, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = DimseSettings(
        name="pacs", kind="dimse", host="127.0.0.1", port=orthanc.port, ae_title="ORTHANC", objects=("summary",)
    )
    plant = Plant(tmp_path / "data", database, destinations=(destination,))
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*files(phantoms), age=60)
    plant.sweep.tick()
    assert plant.app.classification().run_one("worker")

    def damaged(*_args: Any) -> Any:
        raise Unreadable("It cannot be decoded.")

    monkeypatch.setattr("worker.summary.material.hounsfield", damaged)
    while plant.app.delivery().run_one("worker"):
        pass
    shown = plant.exam(phantoms[1][0].series_uid)
    assert shown["state"] == "reported"
    states = {row["object"]: (row["state"], row["last_error"]) for row in shown["deliveries"]}
    assert states["sr"][0] == "delivered"
    assert states["summary"] == ("refused", "It cannot be made: It cannot be decoded.")
    shutil.rmtree(plant.settings.data_dir / "spool")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_is_one_line(language: Language) -> None:
    """A second line would stand where viewers write over the picture."""
    words = WORDING[language]
    for said in (words.caption, words.caption_without):
        assert len(said.format(name="NINE", image="300")) * heat_map._CAPTION_PIXELS <= heat_map._SMALLEST
