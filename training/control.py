"""The control of a split by slice: what the same protocol reaches where the labels say nothing.

Whole patients are given labels anew, so that the new labels tell nothing of the old ones. A network that still finds
the label of a test slice has recognised the patient, whose other slices it has learned from: what the control reaches,
a figure by slice may owe to that alone.
"""

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.dataset import LabelledSlices
from training.errors import DatasetError
from training.metrics import slice_accuracy
from training.protocols import Indices, study_split
from training.recipe import Run


@dataclass(frozen=True)
class Control:
    """Accuracy of test slices under permuted labels: of each draw.

    patients: whose labels were permuted; relabelled: how many of them got another, in each draw. commonest: what naming
    the commonest label of the test slices would reach, in each draw.
    """

    accuracies: tuple[float, ...]
    commonest: tuple[float, ...]
    patients: int
    relabelled: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """The mean of the draws."""
        return statistics.fmean(self.accuracies)

    @property
    def sentence(self) -> str:
        """What the control says."""
        draws = len(self.accuracies)
        reached = f"{self.accuracy:.1%}" if draws == 1 else (
            f"{self.accuracy:.1%} ({min(self.accuracies):.1%} to {max(self.accuracies):.1%} in {draws} draws)"
        )  # fmt: skip
        return (
            f"With the labels of its {self.patients} patients permuted at random, which leaves no disease to find, the "
            f"same split by slice still reaches {reached}; naming the commonest label reaches "
            f"{statistics.fmean(self.commonest):.1%}. A figure by slice up to what the control reaches carries no "
            "information about disease."
        )

    def as_json(self) -> dict[str, Any]:
        """Return the control as it stands in `comparison.json`."""
        return {**asdict(self), "accuracy": self.accuracy, "sentence": self.sentence}


def control_by_slice(run: Run, draws: int) -> Control:
    """Split the run's slices as the study did, learn and judge them under permuted labels, so many times.

    Raises DatasetError where there are too few patients to permute, and KeyboardInterrupt.
    """
    seed = run.recipe.schedule.seed
    accuracies, commonest, relabelled = [], [], []
    patients = 0
    for number in range(draws):
        data, chosen = permuted(run.data, run.chosen, seed=[seed, 2, number])
        said = run.tested(data, [study_split(data, chosen, seed + number)]).named
        accuracies.append(round(slice_accuracy(said.logits, said.labels), 4))
        commonest.append(round(float(np.bincount(said.labels).max() / len(said)), 4))
        before, after = (labels_of_patients(each, chosen) for each in (run.data, data))
        relabelled.append(sum(label != after[patient] for patient, label in before.items()))
        patients = len(before)
    return Control(tuple(accuracies), tuple(commonest), patients, tuple(relabelled))


def permuted(data: LabelledSlices, chosen: Indices, seed: int | list[int]) -> tuple[LabelledSlices, Indices]:
    """Return the data with the labels of whole patients permuted, and those of the chosen slices that take part.

    The patients of each class, in random order, are dealt the classes in turn: of two classes half of each changes, as
    far as numbers allow, so that a new label tells nothing of the old one. Background stays; a patient who stands under
    several classes takes no part. Raises DatasetError where no dealing differs from the truth and from its complement.
    """
    rng = np.random.default_rng(seed)
    known = labels_of_patients(data, chosen)
    classes = len(data.classes)
    first = int(rng.integers(classes))
    dealt: dict[str, int] = {}
    for label in range(classes):
        for place, patient in enumerate(
            rng.permutation([each for each, its in known.items() if its == label]).tolist()
        ):
            dealt[patient] = (first + place) % classes
    pairs = {(known[patient], label) for patient, label in dealt.items()}
    if len(set(dealt.values())) < classes or len(pairs) == len(set(known.values())):
        raise DatasetError(
            "No control by permuted labels: with one patient of each class every labelling is the truth or its "
            "opposite. Add patients."
        )
    labels, kinds = data.labels.copy(), data.kinds.copy()
    for row in np.flatnonzero(labels >= 0):
        if data.patients[row] in dealt:
            labels[row] = dealt[data.patients[row]]
            kinds[row] = data.classes[labels[row]]
    part = np.array([row for row in chosen if data.labels[row] < 0 or data.patients[row] in dealt], dtype=np.int64)
    return replace(data, labels=labels, kinds=kinds), part


def labels_of_patients(data: LabelledSlices, chosen: Indices) -> dict[str, int]:
    """Return the label of each patient who has one and no other, in the order of their names."""
    found: dict[str, set[int]] = {}
    for patient, label in _named(data.patients[chosen], data.labels[chosen]):
        found.setdefault(patient, set()).add(label)
    return {patient: labels.pop() for patient, labels in sorted(found.items()) if len(labels) == 1}


def _named(patients: NDArray[np.str_], labels: NDArray[np.int64]) -> Iterator[tuple[str, int]]:
    return ((patient, label) for patient, label in zip(patients.tolist(), labels.tolist(), strict=True) if label >= 0)
