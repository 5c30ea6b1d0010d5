"""Kinds of CT as scanners and archives make them, from files to the report."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, LegacyConvertedEnhancedCTImageStorage, generate_uid

from pacs.pixels import hounsfield
from pacs.report.reader import read_report
from pacs.selection import select
from pacs.series import read_series
from tests.datasets import ct, write
from tests.integration.test_rules import Site
from tests.integration.test_rules import site as site  # noqa: PLC0414 – a fixture
from tests.plant import files
from tests.report_checks import check_with_tools
from tests.servers import need
from training.phantom import PhantomExam

Phantoms = tuple[Path, list[PhantomExam]]
# What is looked at here is the same on every database.
on_one_database = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def units(path: Path) -> Any:
    return hounsfield(read_series([path]).slices[0])


def by_dcmtk(program: str, *options: str) -> Callable[[Path, Path], None]:
    def encode(source: Path, target: Path) -> None:
        subprocess.run([need(f"/usr/bin/{program}", "dcmtk"), *options, source, target], check=True)

    return encode


def by_gdcm(source: Path, target: Path) -> None:
    reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def by_pydicom(syntax: str) -> Callable[[Path, Path], None]:
    def encode(source: Path, target: Path) -> None:
        dataset = dcmread(source)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(target)

    return encode


ENCODERS = {
    "JPEG-LS by CharLS in DCMTK": (by_dcmtk("dcmcjpls"), "1.2.840.10008.1.2.4.80"),
    "JPEG-LS by CharLS in pyjpegls": (by_pydicom(JPEGLSLossless), "1.2.840.10008.1.2.4.80"),
    "JPEG Lossless by DCMTK": (by_dcmtk("dcmcjpeg", "+e1"), "1.2.840.10008.1.2.4.70"),
    "JPEG Lossless, any selection value, by DCMTK": (by_dcmtk("dcmcjpeg", "+el"), "1.2.840.10008.1.2.4.57"),
    "JPEG 2000 by GDCM": (by_gdcm, "1.2.840.10008.1.2.4.90"),
    "JPEG 2000 by OpenJPEG": (by_pydicom(JPEG2000Lossless), "1.2.840.10008.1.2.4.90"),
}


def signed(dataset: Dataset) -> None:
    """As scanners with signed pixels store it: the same units, half of the stored values below zero."""
    stored = dataset.pixel_array.astype(np.int32) - 1024
    dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 1, 16, 15
    dataset.RescaleIntercept = str(float(dataset.RescaleIntercept) + 1024 * float(dataset.RescaleSlope))
    for keyword in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
        if keyword in dataset:
            del dataset[keyword]
    dataset.PixelData = stored.astype(np.int16).tobytes()
    dataset["PixelData"].VR = "OW"


@pytest.mark.parametrize("kind", ["unsigned", "signed"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_real_encoders_make_of_real_slices_is_read_exactly(
    real_ct: Path, tmp_path: Path, encoder: str, kind: str
) -> None:
    encode, syntax = ENCODERS[encoder]
    for number, source in enumerate(sorted((real_ct / "A0002-B70f").glob("*.dcm"))[::14]):
        dataset = dcmread(source)
        if kind == "signed":
            signed(dataset)
        plain, encoded = tmp_path / f"{number}.dcm", tmp_path / f"{number}-encoded.dcm"
        dataset.save_as(plain)
        encode(plain, encoded)
        assert dcmread(encoded).file_meta.TransferSyntaxUID == syntax
        assert encoded.stat().st_size < plain.stat().st_size
        assert np.array_equal(units(encoded), units(plain))


def multi_frame(paths: Sequence[Path], target: Path) -> Path:
    """Real slices as an archive converts them into one instance, in a study of its own."""
    slices = [dcmread(path) for path in paths]
    for dataset in slices:
        dataset.StudyInstanceUID, dataset.PatientName = "1.2.3.77", "Multi^Frame"
    made = LegacyConvertedEnhancedCTImage(slices, "1.2.3.77.1", 7, generate_uid(), 1)
    made.save_as(target)
    return target


@on_one_database
def test_a_multi_frame_instance_says_what_its_slices_say(
    site: Callable[..., Site], real_ct: Path, tmp_path: Path
) -> None:
    paths = sorted((real_ct / "A0002-B70f").glob("*.dcm"))
    whole = multi_frame(paths, tmp_path / "1.dcm")
    assert dcmread(whole).SOPClassUID == LegacyConvertedEnhancedCTImageStorage
    ordered = [select(read_series(found), min_slices=10).slices for found in (paths, [whole])]
    assert len(ordered[0]) == len(ordered[1]) == len(paths)
    for number, (one, other) in enumerate(zip(*ordered, strict=True)):
        assert one.position_mm == pytest.approx(other.position_mm, abs=1e-3)
        assert one.pixel_spacing == pytest.approx(other.pixel_spacing)
        assert number % 10 or np.array_equal(hounsfield(one), hounsfield(other))
    here = site()
    here.plant.receive(*paths, age=60)
    here.plant.receive(whole, age=60)
    here.plant.run()
    single = here.plant.exam(str(dcmread(paths[0]).SeriesInstanceUID))
    frames = here.plant.exam(str(dcmread(whole).SeriesInstanceUID))
    assert (single["state"], frames["state"]) == ("reported", "reported")
    assert frames["probabilities"] == pytest.approx(single["probabilities"], abs=1e-3)
    (report,) = (path for path in here.archive.rglob("*.dcm") if dcmread(path).PatientName == "Multi^Frame")
    check_with_tools(report, [whole])
    tree = dcmread(report)
    drawn = [item for item in tree.iterall() if item.keyword == "ReferencedFrameNumber"]
    assert {int(item.value) for item in drawn} <= set(range(1, len(paths) + 1))
    assert drawn


def through(here: Site, paths: Sequence[Path]) -> tuple[dict[str, Any], Dataset]:
    """Send a series all the way; return the exam and its report, which the tools have seen."""
    here.plant.receive(*paths, age=60)
    here.plant.run()
    exam = here.plant.exam(str(dcmread(paths[0]).SeriesInstanceUID))
    assert exam["state"] == "reported", exam["reason"]
    (report,) = here.archive.rglob("*.dcm")
    check_with_tools(report, paths[:2])
    return exam, dcmread(report)


def changed(folder: Path, paths: Sequence[Path], change: Callable[[int, Dataset], None]) -> list[Path]:
    """Write slices after a change that is given their number."""
    made = []
    for number, path in enumerate(paths):
        dataset = dcmread(path)
        change(number, dataset)
        made.append(folder / f"{number:03d}.dcm")
        dataset.save_as(made[-1])
    return made


def positions(exam: dict[str, Any]) -> list[float]:
    return [image["position_mm"] for image in exam["slices"]]


@on_one_database
def test_a_tilted_gantry(site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path) -> None:
    angle = np.deg2rad(18)

    def tilt(_number: int, dataset: Dataset) -> None:
        dataset.GantryDetectorTilt = "18"
        dataset.ImageOrientationPatient = [1, 0, 0, 0, round(float(np.cos(angle)), 6), round(float(np.sin(angle)), 6)]

    paths = changed(tmp_path, files(phantoms), tilt)
    exam, report = through(site(), paths)
    assert positions(exam) == sorted(positions(exam))
    # Along the normal slices lie closer than along the table.
    table = sorted(float(dcmread(path).ImagePositionPatient[2]) for path in paths)
    assert np.diff(positions(exam)) == pytest.approx(np.diff(table) * np.cos(angle), abs=0.01)
    assert exam["verdict"] in (phantoms[1][0].label, "indeterminate")
    assert len(read_report(report).sop_uids) == exam["slices_classified"]


@on_one_database
def test_slices_that_lie_unevenly_and_come_from_head_to_foot(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path
) -> None:
    source = files(phantoms)
    heights = np.cumsum(np.random.default_rng(3).uniform(1, 12, len(source)))

    def spread(number: int, dataset: Dataset) -> None:
        x, y, _z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, f"{heights[number]:.3f}"]
        dataset.InstanceNumber = str(len(source) - number)

    exam, _report = through(site(), changed(tmp_path, source, spread))
    assert positions(exam) == pytest.approx(sorted(heights), abs=1e-3)
    assert [image["instance_number"] for image in exam["slices"]] == list(range(len(source), 0, -1))


@on_one_database
@pytest.mark.parametrize("told_by", ["AcquisitionNumber", "TemporalPositionIdentifier"])
def test_of_two_phases_the_larger_speaks(
    site: Callable[..., Site], phantoms: Phantoms, tmp_path: Path, told_by: str
) -> None:
    """Breathing out, every other slice and at other positions, in the series of breathing in."""
    source = files(phantoms)
    for name in ("in", "out"):
        (tmp_path / name).mkdir()

    def breathing_in(_number: int, dataset: Dataset) -> None:
        setattr(dataset, told_by, "1")

    def breathing_out(number: int, dataset: Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        setattr(dataset, told_by, "2")
        dataset.ImagePositionPatient = [x, y, f"{float(z) + 0.7:.3f}"]
        dataset.InstanceNumber = str(100 + number)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{dataset.SOPInstanceUID}.2")

    first = changed(tmp_path / "in", source, breathing_in)
    second = changed(tmp_path / "out", source[::2], breathing_out)
    exam, report = through(site(), [*second, *first])
    assert len(exam["slices"]) == len(first)
    assert exam["notes"] == [f"{len(second)} images of other phases left out"]
    assert read_report(report).sop_uids <= {str(dcmread(path).SOPInstanceUID) for path in first}


def test_acquisitions_that_follow_each_other_belong_together(tmp_path: Path) -> None:
    one_each = [ct(number, AcquisitionNumber=str(number)) for number in range(1, 13)]
    halves = [ct(number, AcquisitionNumber=str(1 + number // 6)) for number in range(12)]
    overlapping = [
        ct(20 + number, AcquisitionNumber="2", ImagePositionPatient=["0", "0", str(47.5 + number * 5.0)])
        for number in range(12)
    ]
    for name, slices, count in (
        ("one", one_each, 12),
        ("halves", halves, 12),
        ("overlapping", one_each_of(1, 12) + overlapping, 24),
    ):
        chosen = select(read_series(write(tmp_path / name, *slices)), min_slices=2)
        assert (len(chosen.slices), chosen.notes) == (count, ())


def one_each_of(acquisition: int, count: int) -> list[Dataset]:
    return [ct(number, AcquisitionNumber=str(acquisition)) for number in range(1, count + 1)]
