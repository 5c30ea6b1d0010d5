"""The control under permuted labels: new labels say nothing of the old, and what recognises patients is found out."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tests.slices import labelled_slices
from training.control import control_by_slice, labels_of_patients, permuted
from training.dataset import LabelledSlices
from training.errors import DatasetError
from training.predictions import Predictions, pooled, predictions
from training.protocols import Split
from training.recipe import Run


def of_patients(uip: int, nsip: int, slices: int = 12) -> LabelledSlices:
    return labelled_slices(
        {"UIP": {f"u{n}": slices for n in range(uip)}, "NSIP": {f"n{n}": slices for n in range(nsip)}}, size=4
    )


@pytest.mark.parametrize(("uip", "nsip"), [(4, 4), (3, 3), (2, 6), (3, 8), (2, 2), (1, 2), (30, 30)])
def test_half_of_each_class_is_labelled_anew(uip: int, nsip: int) -> None:
    data = of_patients(uip, nsip, 2)
    everything = np.arange(len(data))
    for seed in range(20):
        other, chosen = permuted(data, everything, seed)
        before, after = labels_of_patients(data, everything), labels_of_patients(other, everything)
        assert chosen.tolist() == everything.tolist()
        assert before.keys() == after.keys()  # every patient keeps one label
        for label, count in ((0, uip), (1, nsip)):
            swapped = sum(after[patient] != label for patient, its in before.items() if its == label)
            assert swapped in {count // 2, count - count // 2}
        assert set(after.values()) == {0, 1}
        assert before != after
        assert before != {patient: 1 - label for patient, label in after.items()}
        assert [data.classes[label] for label in other.labels] == other.kinds.tolist()
        assert other.fingerprint != data.fingerprint


def test_seeds_swap_different_patients() -> None:
    data = of_patients(4, 4, 1)
    assert len({tuple(permuted(data, np.arange(8), seed)[0].labels) for seed in range(20)}) > 5


def test_background_stays_and_who_has_two_classes_takes_no_part() -> None:
    data = labelled_slices(
        {"UIP": {"a": 2, "b": 2, "both": 1}, "NSIP": {"c": 2, "d": 2, "both": 1}, "normal": {"e": 3}},
        size=4, background=("normal",),
    )  # fmt: skip
    other, chosen = permuted(data, np.arange(len(data)), 0)
    assert set(data.patients[chosen].tolist()) == {"a", "b", "c", "d", "e"}
    assert (other.kinds[data.patients == "e"] == "normal").all()
    assert (other.labels[data.patients == "e"] == -1).all()


def test_one_patient_a_class_allows_no_control() -> None:
    with pytest.raises(DatasetError, match="the truth or its opposite"):
        permuted(of_patients(1, 1), np.arange(24), 0)


def test_three_classes_are_dealt_too() -> None:
    data = labelled_slices({kind: {f"{kind}{n}": 1 for n in range(6)} for kind in ("UIP", "NSIP", "other")}, size=4)
    other, _chosen = permuted(data, np.arange(18), 1)
    for label in range(3):
        assert np.bincount(other.labels[data.labels == label]).tolist() == [2, 2, 2]


def run_of(data: LabelledSlices, *, recognises: bool) -> Run:
    """A run whose networks know a test slice by its patient's slices in training, or by the disease that it shows."""

    def tested(other: LabelledSlices, splits: list[Split]) -> Predictions:
        said = []
        for split in splits:
            logits = np.zeros((len(split.test), 2))
            for row, index in enumerate(split.test):
                same = split.training[data.patients[split.training] == data.patients[index]]
                known = int(np.bincount(other.labels[same]).argmax()) if recognises else int(data.labels[index])
                logits[row, known] = 5.0
            said.append(predictions(other, split.test, logits, np.zeros(len(split.test))))
        return pooled(said)

    recipe = SimpleNamespace(schedule=SimpleNamespace(seed=3))
    return cast("Run", SimpleNamespace(data=data, chosen=np.arange(len(data)), recipe=recipe, tested=tested))


def test_what_recognises_patients_is_found_out() -> None:
    found = control_by_slice(run_of(of_patients(4, 4), recognises=True), draws=3)
    assert found.accuracies == (1.0, 1.0, 1.0)
    assert found.relabelled == (4, 4, 4)
    assert "8 patients permuted at random" in found.sentence
    assert "still reaches 100.0%" in found.sentence
    assert 0.5 <= found.commonest[0] <= 0.6
    assert found.as_json()["accuracy"] == 1.0


def test_what_sees_the_disease_gains_nothing_from_permuted_labels() -> None:
    found = control_by_slice(run_of(of_patients(4, 4), recognises=False), draws=3)
    assert 0.3 < found.accuracy < 0.7
