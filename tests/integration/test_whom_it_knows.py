"""A model of phantoms says nothing of a patient, and nobody a thing of lungs that were hardly seen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from models.classifier import Classifier
from models.preprocessing import Preprocessing
from models.verdict import ExamVerdict
from training.dataset import load
from training.phantom import PhantomExam, is_phantom, write_phantoms
from training.sources import find_sources
from worker.classification import classify_series
from worker.registry import demo_bundle

Change = Callable[[int, Any], None]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], PhantomExam]:
    folder = tmp_path_factory.mktemp("phantom")
    (exam,) = write_phantoms(folder, seed=34, exams=1, slices=16, conditions=("UIP",))
    return sorted((folder / exam.folder).glob("*.dcm")), exam


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.open(demo_bundle())


def changed(files: list[Path], folder: Path, change: Change) -> list[Path]:
    folder.mkdir()
    written = []
    for number, path in enumerate(files):
        dataset = dcmread(path)
        change(number, dataset)
        dataset.save_as(folder / path.name)
        written.append(folder / path.name)
    return written


def verdict(files: list[Path], classifier: Classifier, missing: int = 0) -> ExamVerdict:
    return classify_series(files, classifier, min_slices=3, missing=missing).verdict


def _unmarked(_number: int, dataset: Any) -> None:
    del dataset.QualityControlImage


def _one_unmarked(number: int, dataset: Any) -> None:
    if number == 7:
        dataset.QualityControlImage = "NO"


def _renamed(number: int, dataset: Any) -> None:
    if number == 3:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"


def _moved(_number: int, dataset: Any) -> None:
    dataset.SeriesInstanceUID = "1.2.3.4"


@pytest.mark.parametrize("change", [_unmarked, _one_unmarked, _renamed, _moved])
def test_what_does_not_say_on_every_image_that_it_is_a_phantom_is_a_patient(
    phantom: tuple[list[Path], PhantomExam], classifier: Classifier, tmp_path: Path, change: Change
) -> None:
    said = verdict(phantom[0], classifier)
    assert (said.verdict, said.reason_code) == ("UIP", "")
    patient = verdict(changed(phantom[0], tmp_path / "patient", change), classifier)
    assert (patient.verdict, patient.reason_code, patient.certainty) == ("indeterminate", "demo_model", None)
    assert patient.probabilities == said.probabilities


def test_real_patients_are_no_phantoms(real_ct: Path, classifier: Classifier) -> None:
    for series in sorted(real_ct.iterdir()):
        if series.is_dir():
            said = verdict(sorted(series.glob("*.dcm")), classifier)
            assert (said.verdict, said.reason_code) == ("indeterminate", "demo_model")


def test_a_series_without_images_is_no_phantom() -> None:
    assert not is_phantom("1.2.3", [])


def test_most_of_the_lungs_must_have_been_seen(
    phantom: tuple[list[Path], PhantomExam], classifier: Classifier, tmp_path: Path
) -> None:
    def cut(every: int) -> Change:
        def change(number: int, dataset: Any) -> None:
            if number % every:
                dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 4 * 2]
            dataset["PixelData"].VR = "OW"

        return change

    few = verdict(changed(phantom[0], tmp_path / "few", cut(4)), classifier)
    assert (few.verdict, few.reason_code, few.certainty) == ("indeterminate", "incomplete", None)
    # The PACS has three times as many as came.
    assert verdict(phantom[0], classifier, missing=32).reason_code == "incomplete"
    assert verdict(phantom[0], classifier, missing=2).verdict == "UIP"
    # A part of the lungs is not the lungs, however many slices it has.
    bottom = classify_series(phantom[0][3:7], classifier, min_slices=3).verdict
    assert bottom.reason_code == "incomplete"


def test_images_missing_between_classified_ones_count_as_unseen(
    phantom: tuple[list[Path], PhantomExam], classifier: Classifier
) -> None:
    """A broken transfer that nobody asked the PACS about: most of the middle never came."""
    files = phantom[0]
    assert verdict([*files[:5], *files[11:]], classifier).reason_code == "incomplete"
    assert verdict([*files[:7], *files[8:]], classifier).verdict == "UIP"


def test_a_data_set_tells_phantoms_from_patients(phantom: tuple[list[Path], PhantomExam], tmp_path: Path) -> None:
    for kind, change in (("UIP", lambda _number, _dataset: None), ("NSIP", _as_a_patient)):
        (tmp_path / kind).mkdir()
        changed(phantom[0], tmp_path / kind / "exam", change)
    data = load(find_sources(tmp_path), Preprocessing(size=64))
    assert set(data.phantoms[data.kinds == "UIP"].tolist()) == {True}
    assert set(data.phantoms[data.kinds == "NSIP"].tolist()) == {False}


def _as_a_patient(number: int, dataset: Any) -> None:
    dataset.SeriesInstanceUID, dataset.PatientID = "1.2.3.4", "P1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
    pixels = dataset.pixel_array.copy()
    pixels[:9, :9] += 200  # or it would be the same slice of another patient
    dataset.PixelData = pixels.tobytes()
