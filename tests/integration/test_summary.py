"""What a radiologist sees beside the report: page, heat maps and PDF, in three languages, at a real PACS."""

import dataclasses
import io
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.activation import add_activation, contrast
from models.bundle import open_bundle
from models.classifier import Classifier
from models.lung_mask import find_lungs
from models.resizing import fit, spread
from pacs import codes
from pacs.codes import short_name
from pacs.pixels import hounsfield
from pacs.report import SR_CLASSES, Predecessor
from pacs.report.descriptions import VISIBLE, describe
from pacs.selection import select
from pacs.series import read_series
from tests.plant import Plant, files
from tests.servers import need
from training.phantom import PhantomExam, write_phantoms
from worker.classification import classify_series
from worker.database import Database
from worker.exams import instance_paths, latest
from worker.objects import Drawn, objects_of
from worker.registry import demo_bundle
from worker.results import reported_exam
from worker.summary import Material, build_object, draw_page, gather
from worker.summary.heat_map import caption, draw_capture, draw_heat_map, evidence_scale, sides
from worker.summary.page import _draw
from worker.summary.theme import PRINT, SCREEN
from worker.summary.wording import WORDING, Wording, day, doubts, percent, reason, statements, superseding

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
    assert summary.SeriesDescription == describe(shown.exam, "page")
    assert summary.StudyDescription
    assert len(summary.SourceImageSequence) == len(material.slices)
    heat_map = check(tmp_path, build_object("heatmap-1", shown).content)
    assert (heat_map.SeriesNumber, list(heat_map.PatientOrientation)) == (981, ["L", "P"])
    assert heat_map.SeriesDescription == describe(shown.exam, "maps")
    (source,) = heat_map.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == material.slices[0].key.instance.sop_uid
    pdf = check(tmp_path, build_object("pdf", shown).content)
    assert pdf.EncapsulatedDocument.startswith(b"%PDF")
    assert (pdf.DocumentTitle, pdf.BurnedInAnnotation) == (WORDING[shown.exam.language].title, "YES")
    assert len({each.SeriesDescription[:VISIBLE] for each in (summary, heat_map, pdf)}) == 3
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
        if field.name not in ("software", "comma", "date", "called_slice"):
            assert said["en"] != said["pt-BR"], field.name
            assert said["en"] != said["es"], field.name


def test_statements_and_numbers_are_written_in_the_language(material: Material) -> None:
    shown = in_language(material, "pt-BR", verdict="indeterminate", certainty=None, reason_code="unfamiliar")
    assert reason(shown.exam) == "Diferente dos exames com que o modelo foi treinado"
    assert reason(material.exam) == ""
    assert statements(shown.exam)[0] == "Ninguém informou que há esclerose sistêmica"
    header = shown.exam.header
    assert f"Série de TC {header.series_number}: {header.series_description}" in statements(shown.exam)
    assert f"Kernel {header.kernel}, cortes de 5 mm" in statements(shown.exam)
    for completeness in ("quiet_period", "reprocess"):
        quiet = dataclasses.replace(shown.exam, completeness=completeness)
        assert not any("período" in said or "pedido" in said for said in (*statements(quiet), *doubts(quiet)))
    short = dataclasses.replace(shown.exam, completeness="incomplete", instance_count=12, expected_count=30)
    assert "Chegaram apenas 12 de 30 imagens" in doubts(short)
    assert (day("19610615", "en"), day("1961.06.15", "es"), day("15.6.61", "pt-BR")) == (
        "1961-06-15",
        "15/06/1961",
        "?",
    )
    assert percent(0.9731, "en") == "97.3%"
    assert percent(0.9731, "es") == "97,3%"
    assert percent(0.99999, "en") == "99.9%"
    assert (percent(1.0, "en"), percent(0.00001, "en"), percent(0.0, "en")) == ("99.9%", "0.1%", "0.1%")


def free_edges(picture: NDArray[np.uint8]) -> bool:
    """Whether nothing is drawn on a tenth of a picture along each of its edges."""
    rows, columns = picture.shape[0] // 10, picture.shape[1] // 10
    inside = picture[rows : picture.shape[0] - rows, columns : picture.shape[1] - columns]
    drawn = (np.abs(picture.astype(int) - picture[0, 0]) > 3).any(axis=2)
    return int(drawn.sum()) == int((np.abs(inside.astype(int) - picture[0, 0]) > 3).any(axis=2).sum())


def texts_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text().strip()]


SILENT: dict[str, Any] = {"verdict": "indeterminate", "certainty": None, "reason_code": "unfamiliar"}
CAUTIONED: dict[str, Any] = {"limits": "Knows phantoms only. " * 40, "despite": "nothing else is at hand"}


@pytest.mark.parametrize("language", codes.LANGUAGES)
@pytest.mark.parametrize("values", [{}, SILENT], ids=["verdict", "abstention"])
def test_viewers_write_over_nothing_and_every_letter_can_be_read(
    material: Material, language: str, values: dict[str, Any]
) -> None:
    algorithm = dataclasses.replace(material.exam.algorithm, **CAUTIONED)
    shown = in_language(
        material, language, algorithm=algorithm, doubts=("thick_slices", "other_kernel", "unknown_kernel"),
        completeness="maximum_wait", **values,
    )  # fmt: skip
    assert free_edges(draw_page(shown))
    for theme in (SCREEN, PRINT):
        figure = _draw(shown, theme)
        canvas: Any = FigureCanvasAgg(figure)
        for text in texts_of(figure):
            box = text.get_bbox_patch()
            assert contrast_of(text.get_color(), theme.paper if box is None else box.get_facecolor()) >= 4.5, text
            if box is None:  # a label within a picture stands on its own backing
                extent = text.get_window_extent(canvas.get_renderer())
                assert extent.x1 <= figure.bbox.x1 * 0.901, text.get_text()
    assert contrast_of("#777777", "#0E0E0E") < 4.5 < contrast_of("#F2F2F2", "#0E0E0E")
    if not values:
        for each in shown.slices:
            assert free_edges(draw_capture(shown, each))


def contrast_of(first: Any, second: Any) -> float:
    """The contrast of two colours (WCAG 2.2)."""

    def luminance(colour: Any) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("language", codes.LANGUAGES)
def test_a_page_without_a_verdict_says_why_and_nothing_of_classes(material: Material, language: str) -> None:
    algorithm = dataclasses.replace(material.exam.algorithm, **CAUTIONED)
    sure = in_language(material, language, algorithm=algorithm)
    silent = in_language(material, language, algorithm=algorithm, **SILENT)
    silent = dataclasses.replace(
        silent, slices=tuple(dataclasses.replace(each, activation=None) for each in silent.slices)
    )
    said = "\n".join(text.get_text() for text in texts_of(_draw(silent, SCREEN)))
    flat = " ".join(said.split())
    assert reason(silent.exam) in flat
    assert "%" not in said
    words = set(re.findall(r"\w+", said))
    names = {short_name(known.name, silent.exam.language) for known in silent.exam.classes}
    assert not names & words
    assert names <= set(re.findall(r"\w+", "\n".join(text.get_text() for text in texts_of(_draw(sure, SCREEN)))))
    page = draw_page(silent).reshape(-1, 3)
    for index in range(len(silent.exam.classes)):
        colour = np.round(np.array(to_rgb(SCREEN.colour(index))) * 255).astype(np.uint8)
        assert not (page == colour).all(axis=1).any()
        assert (draw_page(sure).reshape(-1, 3) == colour).all(axis=1).any()
    for each in silent.slices:
        assert f"{each.key.instance_number}, {each.position_mm:.0f} mm" in said
    assert "nothing else is at hand" in said
    assert "Knows phantoms only." in said


def test_evidence_is_coloured_in_lungs_only_and_says_what_it_is(material: Material) -> None:
    algorithm = dataclasses.replace(material.exam.algorithm, **CAUTIONED)
    coloured = 0
    for shown in material.slices:
        rgb = draw_heat_map(shown, evidence_scale(material)).astype(int)
        found = np.ptp(rgb, axis=2) > 6
        lungs = find_lungs(shown.hu, shown.key.pixel_spacing).mask.astype(bool)
        assert not (found & ~lungs).any()
        coloured += int(found.sum())
    assert coloured > 1000
    first = material.slices[0]
    assert caption(material, first) == (
        f"AI evidence for {material.exam.verdict}, CT image {first.key.instance_number}, not for diagnosis"
    )
    plain = draw_capture(material, first)
    turned = dataclasses.replace(first, key=dataclasses.replace(first.key, orientation=(-1, 0, 0, 0, -1, 0)))
    assert [letter for _x, _y, letter in sides(first)] == ["R", "L", "A", "P"]
    assert [letter for _x, _y, letter in sides(turned)] == ["L", "R", "P", "A"]
    assert (draw_capture(material, turned) != plain).any()
    overruled = in_language(material, "en", algorithm=algorithm)
    below = plain.shape[0] * 8 // 10
    assert (draw_capture(overruled, first)[below:] != plain[below:]).any()
    dataset = dcmread(io.BytesIO(build_object("heatmap-1", overruled).content))
    assert "Knows phantoms only" in dataset.DerivationDescription
    assert "nothing else is at hand" in dataset.DerivationDescription
    assert len(dataset.DerivationDescription) <= 1024


def test_the_newest_opens_first_and_what_is_superseded_is_marked(tmp_path: Path, material: Material) -> None:
    first = in_language(material, "es")
    before = Predecessor(SR_CLASSES[0], "1.2.3", material.exam.header.series_uid)
    second = in_language(material, "es", revision=2, predecessor=before)
    objects = [
        (name, check(tmp_path, build_object(name, shown).content))
        for shown, name in (
            (second, "summary"), (second, "superseded-pages"), (first, "summary"),
            (second, "heatmap-1"), (second, "heatmap-2"), (second, "superseded-maps"), (first, "heatmap-1"),
        )
    ]  # fmt: skip
    for kind in (objects[:3], objects[3:]):
        numbers = [int(dataset.InstanceNumber) for _name, dataset in kind]
        assert numbers == sorted(set(numbers)), numbers
        assert len({dataset.SeriesInstanceUID for _name, dataset in kind}) == 1
    assert superseding(second.exam) == "Sustituye el resultado de la revisión 1"
    assert superseding(first.exam) == ""
    other = dataclasses.replace(second.exam, predecessor=Predecessor(SR_CLASSES[0], "1.2.3", "1.2"))
    assert superseding(other) == "Sustituye un resultado anterior de este estudio"
    assert free_edges(objects[1][1].pixel_array)
    wanted = ("sr", "summary", "heatmaps", "pdf")
    assert objects_of(wanted, Drawn(2, pages_before=True, maps_before=True)) == [
        "sr", "summary", "superseded-pages", "heatmap-1", "heatmap-2", "superseded-maps", "pdf",
    ]  # fmt: skip
    assert objects_of(wanted, Drawn(0)) == ["sr", "summary", "pdf"]


def test_the_pdf_is_a4_with_letters_that_can_be_searched(tmp_path: Path, material: Material) -> None:
    path = tmp_path / "page.pdf"
    dataset = dcmread(io.BytesIO(build_object("pdf", in_language(material, "pt-BR")).content))
    path.write_bytes(dataset.EncapsulatedDocument)
    told = {}
    for program, *more in (("pdfinfo",), ("pdffonts",), ("pdftotext", "-")):
        command = [need(program, "poppler-utils"), str(path), *more]
        told[program] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "(A4)" in told["pdfinfo"]
    fonts = told["pdffonts"].splitlines()[2:]
    assert fonts
    assert all("TrueType" in font and "Type 3" not in font for font in fonts), fonts
    for said in ("Padrão de doença pulmonar", "Apoio à decisão", material.exam.header.patient.patient_id):
        assert said in told["pdftotext"]


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
