"""How often the rule promotes what it must not, and what it should: on simulated patients, beside the rule before it.

A patient is a margin: the log odds that the active model gives the true class, normally distributed. A candidate moves
it. Whoever is harmed gets the opposite of a sure verdict; all others gain a little, so that means look well.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from training.promotion.groups import Asked, plan
from training.promotion.outcomes import Compared, Outcome
from training.promotion.rule import Condition, judge

CLASSES = ("UIP", "NSIP")
_SURE = 0.405  # log odds from which a class is named: 60 %
_MEAN, _SPREAD = 1.5, 1.2  # log odds of the active model: 82 % right, 13 % silent, 5 % wrong
_CAN_LOSE = float(stats.norm.cdf((_MEAN + _SURE) / _SPREAD))
_BATTERY = Condition("battery", holds=True, sentence="")


@dataclass(frozen=True)
class Candidate:
    """A kind of candidate. harmed: share of patients who are harmed. gain, noise: of all others, in log odds."""

    name: str
    harmed: float
    gain: float
    noise: float


# The second one's mean Brier score is that of the active model: what 5 % lose, 95 % gain.
CANDIDATES = (
    Candidate("equal", 0.0, 0.0, 0.4),
    Candidate("equal on average, harms 5 %", 0.05, 0.545, 0.1),
    Candidate("worse on average, harms 10 %", 0.10, 0.545, 0.1),
    Candidate("better, harms nobody", 0.0, 1.0, 0.1),
)
PATIENTS = (12, 40, 72, 150)


def rates(candidate: Candidate, patients: int, attempts: int, simulations: int, seed: int) -> tuple[float, float]:
    """Return how often the rule before and this one promote one of so many candidates that ask the same patients."""
    rng = np.random.default_rng(seed)
    before = after = 0
    for _ in range(simulations):
        active = rng.normal(_MEAN, _SPREAD, patients)
        tried = [_moved(candidate, active, rng) for _ in range(attempts)]
        before += any(_promoted_before(active, moved) for moved in tried)
        after += _promoted(active, tried)
    return before / simulations, after / simulations


def brier_gain(candidate: Candidate, seed: int = 0) -> float:
    """Return how much better a candidate's mean Brier score is, over a million patients."""
    rng = np.random.default_rng(seed)
    active = rng.normal(_MEAN, _SPREAD, 1_000_000)
    return float((expit(-active) ** 2 - expit(-_moved(candidate, active, rng)) ** 2).mean())


def _moved(candidate: Candidate, active: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    kept = np.sqrt(1 - (candidate.noise / _SPREAD) ** 2)  # noise alone changes patients, never their distribution
    noise = rng.normal(0, candidate.noise, len(active))
    moved = _MEAN + kept * (active - _MEAN) + noise + candidate.gain
    # Who is called wrongly cannot lose; of all others so many are harmed that the share of all patients is as stated.
    harmed = (active > -_SURE) & (rng.random(len(active)) < candidate.harmed / _CAN_LOSE)
    return np.where(harmed, -np.abs(active) - 1, moved)


def _promoted(active: NDArray[np.float64], tried: list[NDArray[np.float64]]) -> bool:
    """Whether this rule promotes one of the candidates, which are tried one after the other."""
    held_out: Mapping[str, str | None] = {str(n): CLASSES[n % 2] for n in range(len(active))}
    earlier: list[Asked] = []
    for moved in tried:
        asked = plan(held_out, CLASSES, earlier, str)
        earlier.append(Asked(asked.group, asked.asked, asked.alpha or 0.0, served=False))
        if asked.alpha is None:
            continue
        then, now = _outcomes(active), _outcomes(moved)
        patients = [Compared(str(n), CLASSES[n % 2], then[n], now[n]) for n in range(len(active))]
        if judge(patients, CLASSES, asked.alpha, _BATTERY).holds:
            return True
    return False


def _promoted_before(active: NDArray[np.float64], moved: NDArray[np.float64]) -> bool:
    """Apply the rule of before: mean Brier score better, interval of Student's t without zero, no fewer right."""
    gains = expit(-active) ** 2 - expit(-moved) ** 2
    half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    return bool(gains.mean() - half > 0 and (moved >= _SURE).sum() >= (active >= _SURE).sum())


def _outcomes(margins: NDArray[np.float64]) -> list[Outcome]:
    return [
        Outcome.RIGHT if margin >= _SURE else Outcome.WRONG if margin <= -_SURE else Outcome.SILENT
        for margin in margins.tolist()
    ]
