"""What a radiologist sees beside the report: page, heat maps and PDF, in three languages, at a real PACS."""

import dataclasses
import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from models.activation import add_activation, contrast
from models.bundle import open_bundle
from models.classifier import Classifier
from models.lung_mask import find_lungs
from models.resizing import fit, spread
from pacs import codes
from pacs.codes import short_name
from pacs.errors import Unreadable
from pacs.pixels import hounsfield
from pacs.selection import select
from pacs.series import read_series
from tests.plant import Plant, files
from tests.servers import Orthanc, need
from training.phantom import PhantomExam, write_phantoms
from worker.classification import classify_series
from worker.database import Database
from worker.exams import instance_paths, latest
from worker.registry import demo_bundle
from worker.results import reported_exam
from worker.sections import DicomwebSettings, DimseSettings
from worker.summary import Material, build_object, draw_page, gather
from worker.summary.wording import WORDING, Wording, day, percent, statements

Phantoms = tuple[Path, list[PhantomExam]]
ALL: tuple[Literal["summary", "heatmaps", "pdf"], ...] = ("summary", "heatmaps", "pdf")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, phantoms: Phantoms) -> Iterator[Material]:
    folder = tmp_path_factory.mktemp("material")
    database = Database(f"sqlite:///{folder / 'r.sqlite3'}")
    database.upgrade()
    plant = Plant(folder / "data", database)
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*files(phantoms), age=60)
    plant.sweep.tick()
    assert plant.app.classification().run_one("worker")
    with database.read() as session:
        series = latest(session, phantoms[1][0].series_uid)
        exam = reported_exam(session, series, language="en", final=False)
        paths = {path.stem: path for path in instance_paths(session, series, plant.settings.data_dir)}
        assert series.classification is not None
        yield gather(session, series.classification, exam, paths)
    database.dispose()


def in_language(material: Material, language: Any, **values: Any) -> Material:
    exam = dataclasses.replace(material.exam, language=language, **values)
    return dataclasses.replace(material, exam=exam)


def check(tmp_path: Path, content: bytes) -> Dataset:
    """Pass an object through dciodvfy and return it."""
    program = need("dciodvfy", "dicom3tools")
    path = tmp_path / "object.dcm"
    path.write_bytes(content)
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, said
    assert not [line for line in said if line.startswith("Error")], said
    return dcmread(path)


@pytest.mark.parametrize("language", codes.LANGUAGES)
def test_every_object_is_valid_dicom_in_each_language(tmp_path: Path, material: Material, language: str) -> None:
    shown = in_language(material, language)
    summary = check(tmp_path, build_object("summary", shown).content)
    assert (summary.Rows, summary.Columns, summary.PhotometricInterpretation) == (960, 1280, "RGB")
    assert (summary.SeriesNumber, summary.Modality, summary.BurnedInAnnotation) == (980, "OT", "NO")
    assert summary.SeriesDescription.startswith(f"{short_name(shown.exam.verdict, shown.exam.language)} ")
    assert summary.StudyDescription
    assert len(summary.SourceImageSequence) == len(material.slices)
    heat_map = check(tmp_path, build_object("heatmap-1", shown).content)
    assert (heat_map.SeriesNumber, heat_map.Rows, list(heat_map.PatientOrientation)) == (981, 512, ["L", "P"])
    (source,) = heat_map.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == material.slices[0].key.instance.sop_uid
    pdf = check(tmp_path, build_object("pdf", shown).content)
    assert pdf.EncapsulatedDocument.startswith(b"%PDF")
    assert (pdf.DocumentTitle, pdf.BurnedInAnnotation) == (WORDING[shown.exam.language].title, "YES")
    uids = {each.SOPInstanceUID for each in (summary, heat_map, pdf)}
    assert len(uids) == 3
    assert {each.StudyInstanceUID for each in (summary, heat_map, pdf)} == {material.exam.header.study_uid}
    assert {str(each.PatientID) for each in (summary, heat_map, pdf)} == {material.exam.header.patient.patient_id}


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 1, 0), ["L", "P"]),
        ((-1, 0, 0, 0, -1, 0), ["R", "A"]),  # prone
        ((1, 0, 0, 0, 0.95, -0.3), ["L", "P"]),  # tilted
        ((0.7, 0.71, 0, -0.71, 0.7, 0), []),
    ],
)
def test_a_heat_map_says_whereto_its_slice_lies(material: Material, orientation: Any, letters: list[str]) -> None:
    first = material.slices[0]
    turned = dataclasses.replace(first, key=dataclasses.replace(first.key, orientation=orientation))
    shown = dataclasses.replace(material, slices=(turned, *material.slices[1:]))
    dataset = dcmread(io.BytesIO(build_object("heatmap-1", shown).content))
    assert list(dataset.PatientOrientation or []) == letters


def test_the_same_exam_gives_the_same_bytes(material: Material) -> None:
    for name in ("summary", "heatmap-2", "pdf"):
        assert build_object(name, material) == build_object(name, material)


def test_no_sentence_is_missing_in_any_language() -> None:
    for field in fields(Wording):
        said = {language: getattr(words, field.name) for language, words in WORDING.items()}
        assert all(said.values()), field.name
        braces = {frozenset(re.findall(r"{\w+}", sentence)) for sentence in said.values()}
        assert len(braces) == 1, field.name
        if field.name not in ("software", "comma", "date", "key_slice"):
            assert said["en"] != said["pt-BR"], field.name
            assert said["en"] != said["es"], field.name


def test_statements_and_numbers_are_written_in_the_language(material: Material) -> None:
    shown = in_language(material, "pt-BR", verdict="indeterminate", reason_code="unfamiliar")
    assert statements(shown.exam)[:2] == [
        "Diferente dos exames com que o modelo foi treinado",
        "Esclerose sistêmica não confirmada",
    ]
    assert (day("19610615", "en"), day("1961.06.15", "es"), day("15.6.61", "pt-BR")) == (
        "1961-06-15",
        "15/06/1961",
        "?",
    )
    assert percent(0.9731, "en") == "97.3%"
    assert percent(0.9731, "es") == "97,3%"
    assert percent(0.99999, "en") == "99.9%"
    assert (percent(1.0, "en"), percent(0.00001, "en"), percent(0.0, "en")) == ("100.0%", "0.1%", "0.0%")


def test_the_page_shows_the_verdict_and_keeps_the_top_centre_free(material: Material) -> None:
    page = draw_page(material)
    assert page.shape == (960, 1280, 3)
    top = page[:110].astype(int)
    paper = top[0, 0]
    assert (np.abs(top[:, 450:780] - paper) < 4).all(), "a viewer lays its controls there"
    assert (np.abs(top[:, 30:400] - paper) > 60).any()
    other = draw_page(in_language(material, "en", verdict="indeterminate", reason_code="undecided"))
    assert (page[:110, :450] != other[:110, :450]).any()
    odd = dataclasses.replace(material, slices=tuple(
        dataclasses.replace(each, activation=None) for each in material.slices
    ))  # fmt: skip
    assert (draw_page(odd)[140:700, 450:] != page[140:700, 450:]).any()


def test_names_that_look_like_formulas_or_other_scripts_are_printed(tmp_path: Path, material: Material) -> None:
    header = material.exam.header
    for name in ("Müller^$\\frac{1}{0}$", "山田^太郎", "", "A" * 60):
        patient = dataclasses.replace(header.patient, name=name, birth_date="")
        shown = in_language(material, "es", header=dataclasses.replace(header, patient=patient))
        check(tmp_path, build_object("pdf", shown).content)


def test_the_map_is_exact(phantoms: Phantoms) -> None:
    """Its mean, with the bias of the last layer, is the logit: softmax of it gives the probabilities."""
    network = openvino.Core().read_model(open_bundle(demo_bundle()).network)
    assert add_activation(network)
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    temperature = open_bundle(demo_bundle()).description.temperature
    differences = []
    for path in files(phantoms, 0)[4:8] + files(phantoms, 1)[4:8]:
        source = select(read_series([path]), min_slices=1).slices[0]
        image = fit(hounsfield(source), source.pixel_spacing or (1, 1), 512)
        probabilities, _features, maps = compiled(image[None, None]).values()
        evidence = contrast(maps[0], 0).mean() / temperature
        odds = float(np.log(probabilities[0, 0] / probabilities[0, 1]))
        differences.append(odds - evidence)
    assert np.ptp(differences) < 0.05, "what is left is the bias, the same for every slice"


def test_the_map_falls_on_the_disease_of_phantoms(tmp_path: Path) -> None:
    """More often than by chance; it is no segmentation, and nothing that is sent says so."""
    exams = write_phantoms(tmp_path, seed=555000, exams=8, slices=8)
    classifier = Classifier.open(demo_bundle())
    higher, peaks, chance = [], [], []
    for exam in exams:
        result = classify_series(sorted((tmp_path / exam.folder).glob("*.dcm")), classifier, min_slices=4)
        masks = np.load(tmp_path / "masks" / f"{exam.folder}.npz")
        for image in result.slices:
            if image.activation is None or image.source.instance_number is None:
                continue
            hu, spacing = hounsfield(image.source), image.source.pixel_spacing or (1, 1)
            evidence = spread(np.array(image.activation, np.float32), (hu.shape[0], hu.shape[1]), spacing, 512)
            lung = find_lungs(hu, spacing).mask.astype(bool)
            affected = masks["affected"][image.source.instance_number - 1].astype(bool) & lung
            if min(affected.sum(), (lung & ~affected).sum()) < 100:
                continue
            higher.append(evidence[affected].mean() > evidence[lung & ~affected].mean())
            peaks.append(affected.flat[np.where(lung, evidence, -np.inf).argmax()])
            chance.append(affected.sum() / lung.sum())
    assert len(higher) > 25
    assert np.mean(higher) > 0.65
    assert np.mean(peaks) > np.mean(chance) + 0.15, (np.mean(peaks), np.mean(chance))


def test_a_network_without_a_global_mean_has_no_map() -> None:
    from openvino import opset13 as opset

    data = opset.parameter([1, 8], np.float32)
    linear = opset.matmul(data, opset.constant(np.ones((2, 8), np.float32)), transpose_a=False, transpose_b=True)
    assert not add_activation(openvino.Model([opset.softmax(linear, 1)], [data]))


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
