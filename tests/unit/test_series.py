"""Which series are classified, and the reason for each that is not."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, SecondaryCaptureImageStorage

from pacs.elements import is_uid
from pacs.errors import Rejected
from pacs.selection import Note, Selection, select
from pacs.series import read_header, read_series
from tests.datasets import ct, write


def choose(tmp_path: Path, *datasets: Dataset) -> Selection:
    return select(read_series(write(tmp_path, *datasets)), min_slices=3)


def test_slices_are_ordered_from_foot_to_head(tmp_path: Path) -> None:
    selection = choose(tmp_path, *(ct(number) for number in (4, 1, 3, 2)))
    assert [image.position_mm for image in selection.slices] == [5, 10, 15, 20]
    assert selection.notes == ()


def test_feet_first_orientation_still_goes_from_foot_to_head(tmp_path: Path) -> None:
    turned = [ct(number, ImageOrientationPatient=[1, 0, 0, 0, -1, 0]) for number in (1, 2, 3)]
    selection = choose(tmp_path, *turned)
    positions = [image.position_mm for image in selection.slices]
    assert positions == sorted(p for p in positions if p is not None) == [5, 10, 15]


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("not_ct", {"Modality": "MR"}),
        ("not_ct", {"SOPClassUID": SecondaryCaptureImageStorage}),
        ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("projection", {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}),
        ("page", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
        ("not_axial", {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}),
        ("no_geometry", {"ImagePositionPatient": None}),
        ("no_geometry", {"PixelSpacing": ["0", "0"]}),
        ("no_geometry", {"ImageOrientationPatient": None}),
    ],
)
def test_a_refusal_has_a_code_and_a_sentence(tmp_path: Path, code: str, values: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as caught:
        choose(tmp_path, *(ct(number, **values) for number in range(1, 6)))
    assert caught.value.code == code
    assert str(caught.value).endswith(".")


def test_a_series_of_one_slice_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        choose(tmp_path, ct())
    assert caught.value.code == "too_few_slices"


def test_two_orientations_are_refused_but_a_localizer_among_slices_is_left_out(tmp_path: Path) -> None:
    slices = [ct(number) for number in (1, 2, 3)]
    scout = ct(9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    selection = choose(tmp_path / "a", *slices, scout)
    assert len(selection.slices) == 3
    assert selection.notes == (Note("localizer", 1),)
    with pytest.raises(Rejected) as caught:
        choose(tmp_path / "b", *slices, ct(9, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]))
    assert caught.value.code == "mixed_orientation"


def test_of_images_at_one_position_the_largest_acquisition_stays(tmp_path: Path) -> None:
    first = [ct(number) for number in (1, 2, 3, 4)]
    again = [ct(10 + n, AcquisitionNumber="2", ImagePositionPatient=["0", "0", str(n * 5.0)]) for n in (4, 5, 6)]
    selection = choose(tmp_path, *again, *first)
    assert [image.instance_number for image in selection.slices] == [1, 2, 3, 4, 15, 16]
    assert selection.notes == (Note("same_position", 1),)


def test_two_patients_in_one_series_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        choose(tmp_path, ct(1), ct(2), ct(3, PatientID="P2"))
    assert caught.value.code == "mixed_patients"


def test_an_unreadable_file_costs_itself_only(tmp_path: Path) -> None:
    paths = write(tmp_path, *(ct(number) for number in (1, 2, 3)))
    garbage = tmp_path / "x.dcm"
    garbage.write_bytes(b"\x00" * 200)
    series = read_series([*paths, garbage])
    assert len(series.slices) == 3
    assert [path for path, _why in series.unreadable] == [garbage]
    with pytest.raises(Rejected) as caught:
        read_series([garbage])
    assert caught.value.code == "unreadable"


def test_frames_of_an_enhanced_ct_are_slices(tmp_path: Path) -> None:
    dataset = ct(SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=3, ImagePositionPatient=None, PixelSpacing=None,
                 ImageOrientationPatient=None)  # fmt: skip
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ["0.7", "0.7"], "2"
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for z in (20, 10, 30):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = ["0", "0", str(z)]
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    selection = choose(tmp_path, dataset)
    assert [(image.frame, image.position_mm) for image in selection.slices] == [(2, 10), (1, 20), (3, 30)]
    assert selection.slices[0].pixel_spacing == (0.7, 0.7)


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_accents_survive(charset: str, tmp_path: Path) -> None:
    dataset = ct(SpecificCharacterSet=charset, PatientName="Conceição^João", StudyDescription="Tórax")
    header = read_series(write(tmp_path, dataset)).header
    assert (header.patient.name, header.study_description) == ("Conceição^João", "Tórax")


def test_absent_elements_are_empty(tmp_path: Path) -> None:
    header = read_header(ct(StudyDate=None, AccessionNumber=None, PatientID=None))
    assert (header.study_date, header.accession_number, header.patient.patient_id) == ("", "", "")
    assert header.patient.identity == ("", "silva ana")


@pytest.mark.parametrize(
    ("uid", "valid"),
    [("1.2.3", True), ("2.25.0", True), ("1.2.03", False), ("../../etc/passwd", False), ("1.2.3/..", False),
     ("", False), ("1" * 65, False), ("1.2.3\n", False)],
)  # fmt: skip
def test_only_valid_uids_name_files(uid: str, valid: bool) -> None:
    assert is_uid(uid) is valid
