"""Whether intervals hold the truth: simulated slices of patients, more alike within a patient than between them.

    python -m tests.simulations.intervals [DRAWS]

A slice's score is its class's distance from the threshold, and two normal parts, one of its patient and one of its own:
`alike` is the patient's part of their variance. The truth follows from the normal distribution; that of the Brier score
from 400,000 draws. DRAWS of each setting (100 by default: about two minutes on one processor). Seeds follow from the
number of the setting.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from training.metrics import slice_figures
from training.predictions import Predictions

_STEEP = 6.0  # logits for a unit of the score: certain, as networks are
_SLICES = 40  # of the median patient


@dataclass(frozen=True)
class Setting:
    """patients, distances: of each class; alike: from 0 to 1; uneven: sigma of the logarithm of slices a patient."""

    patients: tuple[int, int]
    distances: tuple[float, float]
    alike: float
    uneven: float


SETTINGS = tuple(
    Setting(*each)
    for each in product(
        ((3, 3), (2, 6), (4, 4), (5, 15), (10, 10), (30, 30), (10, 50)),
        ((0.5, 0.5), (1.3, 1.3), (2.0, 0.5), (0.3, 1.8), (2.0, 2.0)),
        (0.5, 0.9),
        (0.1, 0.7),
    )
)


def draw(setting: Setting, rng: np.random.Generator) -> Predictions:
    """Return what a model would have said of the slices of some patients."""
    logits, labels, patients = [], [], []
    for label, (count, distance) in enumerate(zip(setting.patients, setting.distances, strict=True)):
        for number in range(count):
            slices = max(3, int(rng.lognormal(np.log(_SLICES), setting.uneven)))
            own = rng.normal(0, np.sqrt(1 - setting.alike), slices)
            score = (distance + rng.normal(0, np.sqrt(setting.alike)) + own) * (1 if label else -1)
            logits.append(np.stack([np.zeros(slices), _STEEP * score], axis=1))
            labels += [label] * slices
            patients += [f"{label} {number}"] * slices
    names = np.array(patients)
    return Predictions(
        ("UIP", "NSIP"), np.concatenate(logits), np.zeros((len(names), 2)), np.arange(len(names)), np.array(labels),
        np.array(["UIP", "NSIP"])[labels], names, names, np.zeros(len(names), dtype=bool),
    )  # fmt: skip


def truth(setting: Setting, drawn: Predictions) -> dict[str, float]:
    """Return what the figures would be of patients without end, in the proportion of classes that was drawn."""
    shares = np.bincount(drawn.labels, minlength=2) / len(drawn)
    right = norm.cdf(setting.distances)
    brier = [_brier(distance) for distance in setting.distances]
    return {
        "accuracy": float(shares @ right),
        "balanced_accuracy": float(np.mean(right)),
        "auc": float(norm.cdf(sum(setting.distances) / np.sqrt(2))),
        "brier": float(shares @ brier),
    }


@cache
def _brier(distance: float) -> float:
    normal = np.random.default_rng(9).normal(size=400_000)
    return float(np.mean(expit(-_STEEP * (distance + normal)) ** 2))


def coverage(setting: Setting, draws: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return for each figure which part of its intervals held the truth, and their mean width."""
    rng = np.random.default_rng(seed)
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    known: dict[str, float] = {}
    for _ in range(draws):
        drawn = draw(setting, rng)
        known = truth(setting, drawn)
        figures = slice_figures(drawn, drawn)
        for name, value in known.items():
            low, high = figures[name]["low"], figures[name]["high"]
            held.setdefault(name, []).append(low - 1e-4 <= value <= high + 1e-4)  # figures are rounded
            widths.setdefault(name, []).append(high - low)
    return {name: (float(np.mean(held[name])), float(np.mean(widths[name]))) for name in known}


def _rows(draws: int) -> Iterator[tuple[Setting, dict[str, tuple[float, float]]]]:
    for seed, setting in enumerate(SETTINGS):
        yield setting, coverage(setting, draws, seed)


def main() -> None:
    """Print the worst setting of each figure, and how wide intervals are with so many patients."""
    rows = list(_rows(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
    for name in rows[0][1]:
        worst, found = min(rows, key=lambda row: row[1][name][0])
        print(f"{name}: {found[name][0]:.1%} at the worst, {worst}")
        for patients in dict.fromkeys(setting.patients for setting in SETTINGS):
            here = [found[name] for setting, found in rows if setting.patients == patients]
            least, width = min(part for part, _width in here), float(np.mean([width for _part, width in here]))
            print(f"    {patients}: {least:.1%} or more, {width:.2f} wide")


if __name__ == "__main__":
    main()
