"""Hostile bytes, short: the whole of it is `make fuzz`."""

import random
import warnings
from pathlib import Path

import pytest

from tests.fuzz import __main__ as harness
from tests.fuzz import sockets
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", sorted(harness.SHARES))
def test_no_parser_does_what_it_never_should(name: str, tmp_path: Path) -> None:
    target, seeds = TARGETS[name]
    chance = random.Random(name)
    good = list(seeds(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in good:
            target(content)
        for _ in range(120 if name == "pixels" else 400):  # that one takes a process each
            target(sockets.mutate(chance.choice(good), chance))


def test_the_harness_finds_a_planted_fault(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    *_figures, finding = harness.guided("planted", 200_000, 1, tmp_path / "planted")
    assert "exit" in finding


def test_hostile_bytes_through_sockets_leave_the_next_good_sender_served(tmp_path: Path) -> None:
    count = sockets.run(tmp_path / "sockets", 250, 1)
    assert (count.inputs, count.good) == (250, 1)
    assert count.answered > 100
