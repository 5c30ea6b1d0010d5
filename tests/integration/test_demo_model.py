"""What the demo model can do: phantoms of seeds that training never saw, and nothing but the disease to go by."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydicom import dcmread

from models.classifier import Classifier
from models.verdict import INDETERMINATE, ExamVerdict
from training.phantom import DISEASES, write_phantoms
from training.phantom.disease import draw_lesions
from training.phantom.others import OTHERS
from training.phantom.slices import plan_exam
from worker.classification import classify_series
from worker.demo import SEED
from worker.registry import demo_bundle

UNSEEN = 424242
SLICES = 8


def verdicts(folder: Path, seed: int, exams: int, conditions: tuple[str, ...]) -> list[tuple[str, ExamVerdict]]:
    """Return (condition, verdict) of new phantoms, as the worker would say it."""

    def part(index: int) -> list[tuple[str, ExamVerdict]]:
        place = folder / f"{seed}-{index}"
        made = write_phantoms(place, seed=seed + index, exams=exams // 2, slices=SLICES, conditions=conditions)
        classifier = Classifier.open(demo_bundle())
        said = []
        for exam in made:
            paths = sorted((place / exam.folder).glob("*.dcm"))
            said.append((exam.label, classify_series(paths, classifier, min_slices=4).verdict))
        return said

    with ThreadPoolExecutor(2) as pool:
        return [pair for pairs in pool.map(part, range(2)) for pair in pairs]


def test_nine_of_ten_unseen_phantoms_are_right(tmp_path: Path) -> None:
    description = Classifier.open(demo_bundle()).bundle.description
    assert f"--seed {UNSEEN}" not in str(description)
    assert f"--seed {SEED} " not in str(description)
    said = verdicts(tmp_path, UNSEEN, 20, DISEASES)
    assert Counter(truth for truth, _said in said) == {"UIP": 10, "NSIP": 10}
    right = sum(truth == each.verdict for truth, each in said)
    decided = [(truth, each) for truth, each in said if each.verdict != INDETERMINATE]
    assert right >= 0.9 * len(decided), Counter((truth, each.verdict) for truth, each in said)
    assert len(decided) > 0.85 * len(said), Counter((truth, each.reason_code) for truth, each in said)


def test_what_it_does_not_know_stays_indeterminate_with_the_reason(tmp_path: Path) -> None:
    """Phantoms without the disease or with another one; of consolidation training saw nothing.

    A small sample: `python -m tests.honesty` asks about many.
    """
    description = Classifier.open(demo_bundle()).bundle.description
    assert "consolidation" not in str(description.data["limits"])
    said = verdicts(tmp_path, UNSEEN + 50, 40, OTHERS)
    assert Counter(condition for condition, _said in said) == dict.fromkeys(OTHERS, 10)
    named = Counter((condition, each.verdict) for condition, each in said if each.verdict != INDETERMINATE)
    assert sum(named.values()) <= 2, named
    assert all(each.reason_code in ("unfamiliar", "undecided") for _c, each in said if each.verdict == INDETERMINATE)


def test_only_the_disease_tells_two_phantoms_apart() -> None:
    uip, nsip = (plan_exam(disease, 5, 0) for disease in DISEASES)
    assert uip.scan == nsip.scan
    assert uip.positions == nsip.positions
    assert uip.noise_seed == nsip.noise_seed
    assert np.array_equal(uip.patient.ripples, nsip.patient.ripples)
    assert uip.patient.vessels[0].centres.tolist() == nsip.patient.vessels[0].centres.tolist()
    rng = np.random.default_rng(1)
    assert draw_lesions("UIP", uip.patient, rng).disease == "UIP"


def test_headers_of_both_diseases_come_from_the_same_lists(tmp_path: Path) -> None:
    made = write_phantoms(tmp_path, seed=9, exams=16, slices=3)
    values: dict[str, dict[str, set[str]]] = {"UIP": {}, "NSIP": {}}
    for exam in made:
        header = dcmread(tmp_path / exam.folder / "0001.dcm", stop_before_pixels=True)
        for keyword in header.dir():
            values[exam.label].setdefault(keyword, set()).add(str(header[keyword].value))
    assert values["UIP"].keys() == values["NSIP"].keys() or {"PixelPaddingValue"} >= (
        values["UIP"].keys() ^ values["NSIP"].keys()
    )
    for keyword in ("Manufacturer", "ConvolutionKernel", "PatientSex"):
        assert values["UIP"][keyword] & values["NSIP"][keyword], keyword


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_phantoms(tmp_path / name, seed=3, exams=2, slices=3)
    for first in sorted((tmp_path / "a").rglob("*.*")):
        second = tmp_path / "b" / first.relative_to(tmp_path / "a")
        if first.suffix in (".dcm", ".json"):
            assert first.read_bytes() == second.read_bytes()
        else:
            one, two = np.load(first), np.load(second)
            assert all(np.array_equal(one[name], two[name]) for name in one.files)


def test_a_matrix_of_1024_is_the_same_exam(tmp_path: Path) -> None:
    (exam,) = write_phantoms(tmp_path, seed=UNSEEN, exams=1, slices=11)
    paths = sorted((tmp_path / exam.folder).glob("*.dcm"))
    classifier = Classifier.open(demo_bundle())
    plain = classify_series(paths, classifier, min_slices=4)
    for path in paths:
        dataset = dcmread(path)
        fine = dataset.pixel_array.repeat(2, axis=0).repeat(2, axis=1)
        dataset.PixelSpacing = [float(value) / 2 for value in dataset.PixelSpacing]
        dataset.Rows, dataset.Columns, dataset.PixelData = *fine.shape, fine.tobytes()
        dataset.save_as(path)
    fine_exam = classify_series(paths, classifier, min_slices=4)
    assert fine_exam.slices[0].source.rows == 1024
    assert fine_exam.verdict.verdict == plain.verdict.verdict == exam.label
    assert abs(fine_exam.verdict.probabilities["UIP"] - plain.verdict.probabilities["UIP"]) < 0.01
