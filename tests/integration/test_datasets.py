"""What can be trained on: folders, tables, pictures; and where networks start."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.architectures import build
from models.preprocessing import Preprocessing
from tests.datasets import ct, write
from training.dataset import BACKGROUND, load, several_names
from training.errors import DatasetError, TrainingError
from training.overlooked import overlooked
from training.phantom import PhantomExam
from training.sources import Source, find_sources
from training.weights import find_start, load_weights, make_network

SMALL = Preprocessing(size=64)


def picture(path: Path, grey: int, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(grey)
    pixels = np.clip(rng.normal(grey, 1, (40, 40)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels.astype(np.uint16) if mode == "I;16" else pixels).save(path)
    return path


def test_folders_of_pictures_and_portuguese_names(tmp_path: Path) -> None:
    for name, grey in (("PIU", 100), ("pine", 140), ("Outros", 50)):
        for number in range(2):
            picture(tmp_path / name / f"patient-{name}" / f"{number}.png", grey + number)
    (tmp_path / "PIU" / "patient-PIU" / "broken.png").write_bytes(b"no picture")
    picture(tmp_path / "PIU" / "patient-PIU" / "deep.png", 100, "I;16")
    (tmp_path / "notes").mkdir()
    data = load(find_sources(tmp_path), SMALL)
    assert data.classes == ("UIP", "NSIP", "other")
    assert [(count.name, count.slices, count.patients) for count in data.counts()] == [
        ("UIP", 2, 1), ("NSIP", 2, 1), ("other", 2, 1),
    ]  # fmt: skip
    assert set(data.patients) == {"patient-PIU", "patient-pine", "patient-Outros"}
    assert sorted(path.name for path, _why in data.skipped) == ["broken.png", "deep.png"]
    # Grey 100 of 255 in the window from -1350 to 150.
    of_uip = data.images[data.kinds == "UIP"][0]
    assert abs(int(of_uip.mean()) - (-1350 + 1500 * 100 / 255)) <= 7


def test_a_class_may_be_background(tmp_path: Path) -> None:
    for name, grey in (("UIP", 100), ("NSIP", 140), ("normal", 50)):
        picture(tmp_path / name / f"p-{name}" / "0.png", grey)
    data = load(find_sources(tmp_path), SMALL, background=("normal",))
    assert data.classes == ("UIP", "NSIP")
    assert data.labels[data.kinds == "normal"].tolist() == [BACKGROUND]
    assert len(data.counts()) == 3


def test_dicom_series_lie_as_they_like(tmp_path: Path, phantoms: tuple[Path, list[PhantomExam]]) -> None:
    """Two series in one folder, a third in a deep one, a stray file and a broken one."""
    folder, exams = phantoms
    by_label = {exam.label: exam for exam in exams}
    mixed = tmp_path / "UIP"
    mixed.mkdir()
    for path in (folder / by_label["UIP"].folder).glob("*.dcm"):
        shutil.copy(path, mixed / f"a{path.name}")
    flat = write(tmp_path / "flat", *(ct(number, SeriesInstanceUID="1.2.9") for number in range(1, 4)))
    for path in flat:
        shutil.copy(path, mixed / f"b{path.name}")
    (mixed / "readme.txt").write_text("no DICOM", encoding="utf-8")
    shutil.copytree(folder / by_label["NSIP"].folder, tmp_path / "NSIP" / "2024" / "exam")
    data = load(find_sources(tmp_path), SMALL)
    assert set(data.patients) == {exam.patient_id for exam in exams}
    assert any(path.name == "readme.txt" for path, _why in data.skipped)
    assert data.fingerprint == load(find_sources(tmp_path), SMALL).fingerprint


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_names_path_label_and_patient(tmp_path: Path, separator: str) -> None:
    lines = [separator.join(("path", "label", "patient"))]
    for number, (label, patient) in enumerate((("UIP", "ana"), ("PINE", "joão"), ("PINE", "maria"))):
        picture(tmp_path / "slices" / f"{number}.png", 60 + 30 * number)
        lines.append(separator.join((f"slices/{number}.png", label, patient)))
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines), encoding="utf-8-sig")
    data = load(find_sources(table), SMALL)
    assert dict(zip(data.patients.tolist(), data.kinds.tolist(), strict=True)) == {
        "ana": "UIP", "joão": "NSIP", "maria": "NSIP",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("path,label\n", "lines below it"),
        ("file,class\na,b\n", "columns path"),
        ("path,label,patient\nx.png,COPD,p\n", "line 2: 'COPD'"),
        ("path,label,patient\nx.png,UIP,p\n", "x.png does not exist"),
        ("path,label,patient\n,UIP,p\n", "path is empty"),
        ("path,label,patient\nhere.png,UIP,\n", "needs its patient"),
        ("path,label,patient\nempty,UIP,p\n", "empty holds no file"),
        ("path,label,patient\na,b.png,UIP,p\n", "line 2 has more columns"),
    ],
)
def test_wrong_tables_are_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    picture(tmp_path / "here.png", 9)
    (tmp_path / "empty").mkdir()
    table = tmp_path / "table.csv"
    table.write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError, match=sentence):
        find_sources(table)


def test_one_slice_under_two_patients_is_refused_and_a_repeated_one_read_once(tmp_path: Path) -> None:
    first = picture(tmp_path / "UIP" / "a" / "0.png", 90)
    picture(tmp_path / "NSIP" / "b" / "0.png", 120)
    shutil.copy(first, tmp_path / "UIP" / "a" / "copy.png")
    data = load(find_sources(tmp_path), SMALL)
    assert len(data) == 2
    assert [why for _path, why in data.skipped] == ["the same slice was read before"]
    shutil.copytree(tmp_path / "UIP" / "a", tmp_path / "UIP" / "c")
    with pytest.raises(DatasetError, match="one is wrong"):
        load(find_sources(tmp_path), SMALL)


def test_a_radiologist_corrects_the_class_of_a_slice_but_not_whose_it_is(tmp_path: Path) -> None:
    slices = [picture(tmp_path / name / "0.png", value) for name, value in (("a", 90), ("b", 120), ("c", 150))]
    base = [Source("UIP", (slices[0],), True, "a"), Source("NSIP", (slices[1],), True, "b")]
    labelled = Source("NSIP", (slices[0],), True, "a", outweighs=True)
    assert load([*base, labelled, Source("UIP", (slices[2],), True, "c")], SMALL).kinds.tolist() == [
        "NSIP", "NSIP", "UIP",
    ]  # fmt: skip
    for wrong in (
        Source("UIP", (slices[0],), True, "hospital 7", outweighs=True),
        Source("UIP", (slices[0],), True, "a", outweighs=True),
    ):
        with pytest.raises(DatasetError, match="one is wrong"):
            load([*base, labelled, wrong], SMALL)
    with pytest.raises(DatasetError, match="one is wrong"):
        load([*base, replace(labelled, patient="hospital 7")], SMALL)


def test_nothing_readable_is_told_with_its_reasons(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "UIP" / "a" / f"{number}.png", 90 + number, "I;16")
        picture(tmp_path / "NSIP" / "b" / f"{number}.tif", 90 + number, "I;16")
    (tmp_path / "NSIP" / "b" / "volume.nii").write_bytes(b"n")
    with pytest.raises(DatasetError) as caught:
        load(find_sources(tmp_path), SMALL)
    assert "6 × has more than 8 bits" in str(caught.value)
    assert "(" + str(tmp_path / "NSIP" / "b" / "0.tif") + ")" in str(caught.value)
    assert "1 × .nii is not read: give DICOM" in str(caught.value)
    picture(tmp_path / "UIP" / "a" / "good.bmp", 50)
    with pytest.raises(DatasetError, match=r"No slice of NSIP can be learned from\. Of NSIP: 3 × has more than 8 bits"):
        load(find_sources(tmp_path), SMALL)
    picture(tmp_path / "NSIP" / "b" / "good.tiff", 70)
    data = load(find_sources(tmp_path), SMALL)
    assert (len(data), len(data.skipped)) == (2, 7)


def test_the_same_reason_of_many_broken_files_is_one(tmp_path: Path) -> None:
    for name in ("UIP", "NSIP"):
        for number in range(4):
            (tmp_path / name / "p").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "p" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="8 × cannot identify image file 'the file'"):
        load(find_sources(tmp_path), SMALL)


def test_colours_of_16_bits_and_several_pictures_in_a_file_are_left_out(tmp_path: Path) -> None:
    import cv2

    for number, name in enumerate(("UIP", "NSIP")):
        picture(tmp_path / name / "p" / "good.png", 90 + number)
    cv2.imwrite(str(tmp_path / "UIP" / "p" / "deep.png"), np.full((40, 40, 3), 3000, np.uint16))
    pages = [Image.new("L", (40, 40), value) for value in (10, 200)]
    pages[0].save(tmp_path / "UIP" / "p" / "pages.tif", save_all=True, append_images=pages[1:])
    reasons = {path.name: why for path, why in load(find_sources(tmp_path), SMALL).skipped}
    assert "more than 8 bits" in reasons["deep.png"]
    assert "several pictures" in reasons["pages.tif"]


def test_a_series_without_lungs_is_told_as_such(tmp_path: Path) -> None:
    for name, uid in (("UIP", "1.2.8"), ("NSIP", "1.2.9")):
        write(tmp_path / name, *(ct(number, SeriesInstanceUID=uid) for number in range(1, 4)))
    with pytest.raises(DatasetError, match="6 × shows too little lung"):
        load(find_sources(tmp_path), SMALL)


def test_what_is_no_class_is_named(tmp_path: Path) -> None:
    for name in ("UIP", "NSIP", "Sarcoid", "UIP_old", "test/UIP", "UIP/.ipynb_checkpoints"):
        picture(tmp_path / name / "p" / "0.png", len(name))
    picture(tmp_path / "loose.png", 9)
    (tmp_path / "notes").mkdir()
    (tmp_path / "normal").mkdir()
    sentences = overlooked(tmp_path)
    assert [sentence for sentence in sentences if not sentence.endswith(".")] == []
    said = {name: [each for each in sentences if str(tmp_path / name) + " " in each] for name in (
        "Sarcoid", "UIP_old", "test", "UIP", "normal", "notes", "NSIP",
    )}  # fmt: skip
    assert "is none of the classes (UIP, NSIP, normal, other" in said["Sarcoid"][0]
    assert "1 file in it is not read" in said["UIP_old"][0]
    assert "data set of its own" in said["test"][0]
    assert "1 hidden file" in said["UIP"][0]
    assert "holds no file" in said["normal"][0]
    assert not said["notes"]
    assert not said["NSIP"]
    assert any("loose.png" in sentence for sentence in sentences)
    assert len(sentences) == 6
    assert set(load(find_sources(tmp_path), SMALL).patients.tolist()) == {"p"}  # and none from the hidden folder


def test_a_class_within_another_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "UIP" / "a" / "PINE" / "0.png", 90)
    picture(tmp_path / "NSIP" / "b" / "0.png", 120)
    with pytest.raises(DatasetError, match="lies in the folder of another, UIP"):
        find_sources(tmp_path)


def test_phantoms_whose_files_are_gone_are_refused(tmp_path: Path) -> None:
    truth = {"1.2": {"label": "UIP", "folder": "exam-1"}}
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    with pytest.raises(DatasetError, match="exam-1, in which there is no DICOM file"):
        find_sources(tmp_path)


def test_folders_numbered_anew_in_each_class_are_exams_of_their_own(tmp_path: Path) -> None:
    for number, name in enumerate(("UIP", "NSIP")):
        picture(tmp_path / name / "1" / "0.png", 90 + number)
    assert len(set(load(find_sources(tmp_path), SMALL).exams.tolist())) == 2


def test_a_patient_of_two_classes_is_told(tmp_path: Path) -> None:
    for number, name in enumerate(("UIP", "NSIP")):
        picture(tmp_path / name / "ana" / "0.png", 90 + number)
    assert several_names(load(find_sources(tmp_path), SMALL)) == ["ana"]


def _one_class(folder: Path) -> Path:
    picture(folder / "UIP" / "p" / "a.png", 1)
    return folder


def _no_patient(folder: Path) -> Path:
    picture(folder / "UIP" / "a.png", 1)
    return folder


@pytest.mark.parametrize("make", [lambda p: p / "none", lambda p: p, _one_class, _no_patient])
def test_nothing_to_train_on_is_a_clear_refusal(tmp_path: Path, make: Any) -> None:
    with pytest.raises(DatasetError) as caught:
        load(find_sources(make(tmp_path)), SMALL)
    assert str(caught.value).endswith(".")


def test_series_without_a_patient_are_refused(tmp_path: Path, phantoms: tuple[Path, list[PhantomExam]]) -> None:
    from pydicom import dcmread

    folder, exams = phantoms
    for exam in exams:
        target = tmp_path / exam.label / exam.folder
        target.mkdir(parents=True)
        for path in sorted((folder / exam.folder).glob("*.dcm")):
            dataset = dcmread(path)
            dataset.PatientID = ""
            dataset.save_as(target / path.name)
    with pytest.raises(DatasetError, match="names no patient"):
        load(find_sources(tmp_path), SMALL)


def test_a_wrong_truth_file_is_a_clear_refusal(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps({"1.2": {"label": "COPD"}}), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"truth\.json"):
        find_sources(tmp_path)


def test_imagenet_weights_start_all_but_the_last_layer(imagenet_weights: Path) -> None:
    torch.manual_seed(0)
    network, untouched = build("mobilenet_v2", 2), build("mobilenet_v2", 2)
    before = network.state_dict()["classifier.1.weight"].clone()
    load_weights(network, imagenet_weights, last_layer=False)
    assert torch.equal(network.state_dict()["classifier.1.weight"], before)
    assert not torch.equal(network.state_dict()["features.0.0.weight"], untouched.state_dict()["features.0.0.weight"])


def test_weights_come_from_pth_and_safetensors_alike(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = build("mobilenet_v2", 1000)
    torch.save(source.state_dict(), tmp_path / "mobilenet_v2-abc.pth")
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    for file in ("mobilenet_v2-abc.pth", "w.safetensors"):
        network = build("mobilenet_v2", 2)
        load_weights(network, tmp_path / file, last_layer=False)
        assert torch.equal(network.state_dict()["features.18.0.weight"], source.state_dict()["features.18.0.weight"])
    start = find_start("mobilenet_v2", tmp_path, from_scratch=False)
    assert str(start) == "weights of mobilenet_v2-abc.pth"
    assert str(find_start("vgg16", tmp_path, from_scratch=True)) == "random weights"
    with pytest.raises(TrainingError, match="no weights for vgg16"):
        find_start("vgg16", tmp_path, from_scratch=False)
    with pytest.raises(TrainingError, match="does not exist"):
        find_start("vgg16", tmp_path / "none.pth", from_scratch=False)
    assert find_start("vgg16", None, from_scratch=False).kind == "imagenet"


class _Evil:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch /tmp/reticula-was-here",)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "evil.pth"
    torch.save({"features.0.0.weight": _Evil()}, file)
    with pytest.raises(TrainingError, match="no weights that can be read"):
        load_weights(build("mobilenet_v2", 2), file, last_layer=False)
    assert not Path("/tmp/reticula-was-here").exists()
    torch.save({"epoch": 3}, file)
    with pytest.raises(TrainingError, match="something else"):
        load_weights(build("mobilenet_v2", 2), file, last_layer=False)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"features.0.0.weight": torch.zeros(1)}, file)
    with pytest.raises(TrainingError, match="does not fit"):
        load_weights(build("mobilenet_v2", 2), file, last_layer=False)
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(b"garbage")
        with pytest.raises(TrainingError, match="no weights"):
            load_weights(build("mobilenet_v2", 2), tmp_path / name, last_layer=False)


def test_weights_of_a_bundle_start_no_new_split(tmp_path: Path) -> None:
    """They have learned from patients whom it would test them on."""
    torch.manual_seed(3)
    source, network = build("mobilenet_v2", 2), build("mobilenet_v2", 2)
    (tmp_path / "bundle").mkdir()
    for folder in (tmp_path, tmp_path / "bundle"):
        save_file(source.state_dict(), folder / "mobilenet_v2.safetensors")
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    for place in (tmp_path / "bundle", tmp_path / "bundle" / "mobilenet_v2.safetensors"):
        with pytest.raises(TrainingError, match="reticula retrain"):
            find_start("mobilenet_v2", place, from_scratch=False)
    before = network.state_dict()["classifier.1.weight"].clone()
    load_weights(network, tmp_path / "mobilenet_v2.safetensors", last_layer=False)
    assert torch.equal(network.state_dict()["classifier.1.weight"], before)
    load_weights(network, tmp_path / "mobilenet_v2.safetensors", last_layer=True)
    assert torch.equal(network.state_dict()["classifier.1.weight"], source.state_dict()["classifier.1.weight"])


def test_the_same_seed_starts_the_same_network() -> None:
    start = find_start("mobilenet_v2", None, from_scratch=True)
    one, other, third = (make_network("mobilenet_v2", 2, start, seed) for seed in (1, 1, 2))
    assert torch.equal(one.state_dict()["classifier.1.weight"], other.state_dict()["classifier.1.weight"])
    assert not torch.equal(one.state_dict()["features.0.0.weight"], third.state_dict()["features.0.0.weight"])
