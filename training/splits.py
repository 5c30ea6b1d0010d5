"""Who trains and who validates: whole patients only."""

import numpy as np
from numpy.typing import NDArray


def split_patients(
    labels: NDArray[np.int64], patients: NDArray[np.str_], *, validation: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices (training, validation) of slices, patients kept whole and classes kept balanced.

    Of each class about the part `validation` of the patients validates, at least one, and none where the class has
    a single patient. A patient with slices of several classes counts for the first of them.
    """
    rng = np.random.default_rng(seed)
    chosen: set[str] = set()
    names, first = np.unique(patients, return_index=True)
    for label in np.unique(labels):
        of_class = names[labels[first] == label]
        count = min(max(1, round(len(of_class) * validation)), len(of_class) - 1)
        chosen.update(str(name) for name in rng.permutation(of_class)[:count])
    held_out = np.isin(patients, sorted(chosen))
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
