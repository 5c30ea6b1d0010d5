"""The intervals of slice figures hold the truth, on a fixed sample of the simulation that chose them."""

import pytest

from tests.simulations.intervals import Setting, coverage

# A bootstrap over patients, and Student's t, hold 45 to 80 % of these.
HARD = (
    Setting((4, 4), (2.0, 2.0), 0.9, 0.7),
    Setting((2, 6), (2.0, 0.5), 0.9, 0.1),
    Setting((5, 15), (0.5, 0.5), 0.9, 0.1),
    Setting((30, 30), (2.0, 2.0), 0.9, 0.1),
)


@pytest.mark.parametrize("setting", HARD, ids=str)
def test_intervals_hold_the_truth(setting: Setting) -> None:
    for name, (held, width) in coverage(setting, draws=100, seed=3).items():
        assert held >= 0.95, name
        assert 0 < width < 0.9, name
