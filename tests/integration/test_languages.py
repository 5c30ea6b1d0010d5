"""What a reader sees on the command line, in each language."""

import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from sqlalchemy import select

from pacs.codes import LANGUAGES, Language, short_name
from pacs.report import SR_CLASSES, build_report
from pacs.report.exam import INCOMPLETE
from tests.installation import Installation, send
from tests.plant import Plant, files
from training.phantom import PhantomExam
from worker.commands import wording
from worker.database import Database
from worker.results import reported_exam
from worker.states import DeliveryState, State
from worker.summary import build_object, gather
from worker.tables import Instance, Series

Phantoms = tuple[Path, list[PhantomExam]]


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, phantoms: Phantoms, dcmtk: dict[str, str]
) -> Iterator[Installation]:
    """An installation that has classified one exam and rejected another."""
    made = Installation(tmp_path_factory.mktemp("languages"))
    made.prepare()
    made.start("up")
    few = tmp_path_factory.mktemp("few")
    for path in files(phantoms, 1)[:3]:
        (few / path.name).write_bytes(path.read_bytes())
    send(dcmtk["storescu"], made.port, files(phantoms, 0)[0].parent, few)
    for exam, states in zip(phantoms[1], (("classified",), ("rejected",)), strict=False):
        made.wait_for_state(exam.series_uid, *states)
    yield made
    made.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_exams_are_listed_and_shown_in_the_readers_language(installation: Installation, language: Language) -> None:
    installation.environment["RETICULA_LANGUAGE"] = language
    rows = {row["state"]: row for row in installation.json("exams", "list")}
    listed = installation.run("exams", "list").stdout
    for state in rows:
        assert wording.value(state, language) in listed
    reason = {
        "en": "too_few_slices",
        "pt-BR": "A série tem poucos cortes",
        "es": "La serie tiene pocos cortes",
    }[language]
    assert reason in listed
    assert short_name(rows["classified"]["verdict"], language) in listed
    shown = installation.run("exams", "show", rows["classified"]["series_uid"]).stdout
    for key in ("received_at", "model", "completeness", "position_mm"):
        assert wording.name(key, language) in shown
    assert wording.sentence("key_slice", language, rank=1) in shown
    if language != "en":
        for english in ("received", "classified slices", "key slice", "position"):
            assert english not in shown


def test_no_sentence_is_missing(installation: Installation) -> None:
    (row, *_) = installation.json("exams", "list")
    shown = installation.json("exams", "show", row["series_uid"])
    named = set(shown) - {"slices", "deliveries"}
    for language in LANGUAGES:
        for table in (wording._NAMES, wording._VALUES, wording._SENTENCES):
            assert all(said.strip() for known in table.values() for said in known)
        assert not [key for key in named if key not in wording._NAMES], language
        assert not [state for state in (*State, *DeliveryState) if state not in wording._VALUES]


def test_the_list_can_be_shortened(installation: Installation) -> None:
    everything = installation.json("exams", "list")
    assert installation.json("exams", "list", "--newest", "1") == everything[:1]
    beyond = installation.run("exams", "list", "--newest", "9" * 20, check=False)
    assert beyond.returncode == 2
    assert "1000000" in beyond.stderr
    rejected = installation.json("exams", "list", "--state", "rejected")
    assert rejected == [row for row in everything if row["state"] == "rejected"] != []
    wrong = installation.run("exams", "list", "--state", "lost", check=False)
    assert wrong.returncode == 2
    assert "rejected" in wrong.stderr


# What is the same in every language: names, identifiers, numbers, and what the images say themselves.
_NO_SENTENCE = re.compile(
    r"[\d.:+\- ]*|[0-9a-f]{16,64}|[A-Z0-9_\-]+|Reticula|reticula [\d.]+|demo( [\d.]+)?|Phantom( [A-Z]|: .*)?|TID.*|"
    r"Network\^.*|application/pdf|Pixels|[a-z]{2}(-[A-Z]{2})?|\{.*\}"
)


def texts(dataset: Dataset) -> set[str]:
    """Every text that a person may be shown; names of coding schemes and units are none."""
    found = set()
    for element in dataset.iterall():
        if element.VR in ("LO", "LT", "SH", "ST", "UC", "UT") and element.keyword not in _OF_MACHINES:
            found |= set(map(str, element.value if element.VM > 1 else [element.value]))
    return {text for text in found if not _NO_SENTENCE.fullmatch(text)}


_OF_MACHINES = {"CodeValue", "CodingSchemeDesignator", "CodingSchemeName", "SoftwareVersions", "DeviceSerialNumber"}


def test_no_object_has_a_sentence_of_another_language(tmp_path: Path, database: Database, phantoms: Phantoms) -> None:
    plant = Plant(tmp_path / "data", database)
    plant.app.registry.import_bundle("demo", actor="test")
    first, *others = files(phantoms, 0)
    broken = tmp_path / "broken.dcm"
    dataset = dcmread(others[3])
    dataset.PixelData = dataset.PixelData[:5000]
    dataset.save_as(broken)
    scout = tmp_path / "scout.dcm"
    dataset = dcmread(first)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{dataset.SOPInstanceUID}1")
    dataset.save_as(scout)
    plant.receive(first, *others[:3], *others[4:], broken, scout, age=60)
    plant.run()
    exam = plant.exam(phantoms[1][0].series_uid)
    assert exam["notes"] == ["1 images left out (localizer)", "1 slices could not be decoded"]
    said: dict[str, set[str]] = {}
    with database.read() as session:
        series = session.scalars(select(Series)).one()
        instances = session.scalars(select(Instance).where(Instance.series_id == series.id))
        paths = {image.sop_uid: plant.settings.data_dir / image.path for image in instances}
        for language in LANGUAGES:
            made = replace(
                reported_exam(session, series, language=language, final=True),
                scope_rule="scleroderma-x", corrected=("PatientID",), expected_count=99, completeness=INCOMPLETE,
            )  # fmt: skip
            assert series.classification is not None
            material = gather(session, series.classification, made, paths)
            documents = [build_report(made, SR_CLASSES[0])]
            documents += [build_object(name, material) for name in ("summary", "pdf")]
            said[language] = set().union(*(texts(dcmread(BytesIO(each.content))) for each in documents))
    assert said["en"] & said["pt-BR"] == set()
    assert said["en"] & said["es"] == set()
