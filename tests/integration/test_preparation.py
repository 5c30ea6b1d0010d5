"""Slices are prepared while headers are still read: what is begun and not selected counts for nothing."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import UID

from models.classifier import Classifier
from models.preprocessing import Preprocessing
from pacs.errors import Rejected
from pacs.pixels import Decoded, decode
from pacs.selection import Note, select
from pacs.series import SeriesHeader, SourceSlice
from training.phantom import write_phantoms
from training.phantom.mark import phantom_uid
from worker import preparation
from worker.classification import classify_series
from worker.preparation import Preparation
from worker.registry import demo_bundle

SLICES = 24


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    (exam,) = write_phantoms(folder, seed=12, exams=1, slices=SLICES)
    return sorted((folder / exam.folder).glob("*.dcm"))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.open(demo_bundle())


def changed(paths: list[Path], folder: Path, change: Callable[[int, Any], None]) -> list[Path]:
    """Write the files anew, each changed with its number."""
    folder.mkdir()
    for number, path in enumerate(paths):
        dataset = dcmread(path)
        change(number, dataset)
        dataset.save_as(folder / path.name)
    return sorted(folder.glob("*.dcm"))


def prepared(
    paths: list[Path], check: Callable[[SeriesHeader], None] = lambda _header: None
) -> tuple[list[str], list[str]]:
    """Return the UIDs of slices that were prepared, and of those that were selected."""
    work = Preparation(paths, Preprocessing(), check=check, select=partial(select, min_slices=3))
    begun = [image.source.sop_uid for image in work.slices()]
    return begun, [source.sop_uid for source in work.selection.slices]


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("slices")}


@pytest.mark.parametrize("cores", [1, 2, 4, 64])
def test_each_slice_comes_once_whatever_the_cores(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    begun, selected = prepared(files[::-1])
    assert len(begun) == len(set(begun)) == SLICES
    assert set(begun) == set(selected)
    assert not threads()


def test_what_was_begun_and_is_not_selected_changes_nothing(
    files: list[Path], classifier: Classifier, tmp_path: Path
) -> None:
    """A second phase with other pixels, whose files come first."""

    def other_phase(number: int, dataset: Any) -> None:
        dataset.AcquisitionNumber, dataset.InstanceNumber = 2, 1000 + number
        # As a phantom's own rule has it: with another one all of it would be a patient.
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(
            phantom_uid(dataset.SeriesInstanceUID, 1000 + number)
        )
        dataset.PixelData = (dataset.pixel_array[::-1] // 2).tobytes()

    others = changed(files[: SLICES - 4], tmp_path / "phase", other_phase)
    begun, selected = prepared([*others, *files])
    assert len(begun) > len(selected) == SLICES
    alone = classify_series(files, classifier, min_slices=3)
    both = classify_series([*others, *files], classifier, min_slices=3)
    assert both.verdict == alone.verdict
    assert [(image.source.sop_uid, image.probabilities, image.key_rank, image.outlines) for image in both.slices] == [
        (image.source.sop_uid, image.probabilities, image.key_rank, image.outlines) for image in alone.slices
    ]
    assert both.notes == (Note("other_phase", SLICES - 4),)


def coronal(_number: int, dataset: Any) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def no_ct(_number: int, dataset: Any) -> None:
    dataset.Modality = "MR"


def two_patients(number: int, dataset: Any) -> None:
    dataset.PatientID = f"P{number // 2}"


@pytest.mark.parametrize(
    ("change", "code", "most"), [(coronal, "not_axial", 0), (no_ct, "not_ct", 0), (two_patients, "mixed_patients", 1)]
)
def test_nothing_much_is_begun_of_a_series_that_its_headers_refuse(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, code: str, most: int
) -> None:
    paths = changed(files, tmp_path / "changed", change)
    decoded: list[SourceSlice] = []

    def count(source: SourceSlice) -> Decoded:
        decoded.append(source)
        return decode(source)

    monkeypatch.setattr(preparation, "decode", count)
    with pytest.raises(Rejected) as rejected:
        prepared(paths)
    assert rejected.value.code == code
    assert len(decoded) <= most
    assert not threads()


def test_a_refused_header_costs_no_pixel_and_several_patients_are_said_first(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_header: SeriesHeader) -> None:
        raise Rejected("out_of_scope", "No.")

    monkeypatch.setattr(preparation, "decode", lambda _source: pytest.fail("a pixel was touched"))
    with pytest.raises(Rejected) as rejected:
        prepared(files, refuse)
    assert rejected.value.code == "out_of_scope"
    with pytest.raises(Rejected) as rejected:
        prepared(changed(files, tmp_path / "two", two_patients), refuse)
    assert rejected.value.code == "mixed_patients"


def test_more_slices_than_requests_come_in_their_order_and_a_failing_source_leaves_none_running(
    classifier: Classifier,
) -> None:
    size = classifier.bundle.description.preprocessing.size
    rng = np.random.default_rng(3)
    images = [rng.integers(-1000, 200, (size, size), dtype=np.int16) for _ in range(40)]
    for image in images:
        image.flags.writeable = False
    keys = [key for key, _output in classifier.stream(enumerate(images))]
    assert keys == list(range(40))
    first = classifier.probabilities(images[:3])
    together = classifier.probabilities([image.copy(order="F") for image in images])
    assert np.allclose(together[:3], first, atol=1e-3)

    def failing() -> Iterator[tuple[int, NDArray[np.int16]]]:
        yield from enumerate(images[:5])
        raise Rejected("not_axial", "No.")

    with pytest.raises(Rejected):
        list(classifier.stream(failing()))
    assert np.allclose(classifier.probabilities(images[:3]), first, atol=1e-3)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the policy for batches is Linux's")
@pytest.mark.parametrize("refused", [False, True])
def test_who_prepares_slices_does_not_interrupt_the_network(
    files: list[Path], classifier: Classifier, refused: bool
) -> None:
    seen: list[int] = []

    def check(_header: SeriesHeader) -> None:
        seen.append(os.sched_getscheduler(0))
        if refused:
            raise Rejected("not_chest", "Not a chest.")

    def classify() -> tuple[int, int]:
        before = os.sched_getscheduler(0)
        with pytest.raises(Rejected) if refused else nullcontext():
            classify_series(files, classifier, min_slices=3, check_header=check)
        return before, os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as beside:  # whatever policy the tests run in
        beside.submit(os.sched_setscheduler, 0, os.SCHED_OTHER, os.sched_param(0)).result()
        assert beside.submit(classify).result() == (os.SCHED_OTHER, os.SCHED_OTHER)
    assert set(seen) == {os.SCHED_BATCH}
