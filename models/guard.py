"""The guard: what keeps a model silent about what it does not know. Part of the bundle.

No limit means that nobody is known, never that anybody is. Limits come from patients that the network neither learned
from nor was chosen by, each measured against a fit that has not seen that patient. With n of them the limit of a class
is the ceil(0.95 (n + 1))-th smallest distance (conformal prediction, Papadopoulos et al. 2002; class by class, Vovk
2012). That needs 19 patients of the class, for with fewer no distance is that rank. The fits that measure have not seen
the patient, and the one that serves has seen all: as with CV+ (Barber et al. 2021) at least 90 % of further patients
like these are sure to lie within the limit, and about 95 % do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Population = Literal["phantoms", "patients"]
FEWEST_PATIENTS = 19  # of a class: the least n with ceil(0.95 (n + 1)) <= n
FAMILIAR_PART = 0.95


@dataclass(frozen=True)
class Guard:
    """Whom a bundle knows.

    knows: whether limits, temperature and operating point come from phantoms or from patients, never from both.
    patients: how many of each class they come from. limits: the largest distance from each class; None where nobody is
    known. reproduces: whether the bundle was made by a protocol that splits by slice: it repeats a study and serves
    nobody.
    """

    knows: Population
    patients: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, float] | None = None
    reproduces: bool = False

    @property
    def missing(self) -> dict[str, int]:
        """How many more patients of each class are needed before the bundle may say anything; without the 0."""
        lack = {name: FEWEST_PATIENTS - count for name, count in self.patients.items()}
        return {name: count for name, count in lack.items() if count > 0}


def conformal_limit(distances: Sequence[float]) -> float | None:
    """Return the limit from the distances of patients of one class, rounded up.

    None where they are too few, or a distance is no number.
    """
    if len(distances) < FEWEST_PATIENTS or not all(map(math.isfinite, distances)):
        return None
    rank = math.ceil((len(distances) + 1) * FAMILIAR_PART)
    return math.ceil(sorted(distances)[rank - 1] * 1e4) / 1e4  # never below the patient that sets it
