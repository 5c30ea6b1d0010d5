"""What is counted of all peers, in one process and across several."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs.counts import Counts, LocalCounts, SharedCounts

ANA, EVA = ("ANA", "127.0.0.1"), ("EVA", "127.0.0.1")


@pytest.fixture(params=["local", "shared"])
def counts(request: pytest.FixtureRequest) -> Counts:
    if request.param == "local":
        return LocalCounts()
    memory = SharedCounts.allocate(2, 8)
    made = shared(memory, 0, 2, 8)
    os.close(memory)
    return made


def test_associations_are_counted_by_peer_and_in_all(counts: Counts) -> None:
    first = counts.admit(ANA, 3, 2)
    assert isinstance(first, int)
    assert isinstance(counts.admit(ANA, 3, 2), int)
    assert counts.admit(ANA, 3, 2) == "this peer has 2 already"
    assert isinstance(counts.admit(EVA, 3, 2), int)
    assert counts.admit(EVA, 3, 2) == "there are 3 already"
    counts.dismiss(first)
    assert isinstance(counts.admit(ANA, 3, 2), int)


def test_bytes_are_counted_until_they_are_given_back(counts: Counts) -> None:
    assert counts.reserve(60, 100)
    assert not counts.reserve(60, 100)
    assert counts.reserve(-60, 100)
    assert counts.reserve(100, 100)


def shared(memory: int, part: int, processes: int, slots: int) -> SharedCounts:
    return SharedCounts(memory, part=part, processes=processes, slots=slots)


@pytest.fixture
def part() -> Iterator[Callable[[int], SharedCounts]]:
    memory = SharedCounts.allocate(2, 4)
    yield lambda number: shared(memory, number, 2, 4)
    os.close(memory)


def test_two_processes_count_together(part: Callable[[int], SharedCounts]) -> None:
    one, two = part(0), part(1)
    assert one.admit(ANA, 2, 2) == 0
    assert two.admit(ANA, 2, 2) == 1
    assert one.admit(EVA, 2, 2) == "there are 2 already"
    assert one.connections(3) == 3
    assert two.connections(4) == 7
    assert one.reserve(60, 100)
    assert not two.reserve(60, 100)


def test_what_a_dead_process_had_counted_is_forgotten_when_it_begins_again(part: Callable[[int], SharedCounts]) -> None:
    one, two = part(0), part(1)
    assert one.admit(ANA, 2, 2) == 0
    assert two.admit(EVA, 2, 2) == 1
    assert one.reserve(60, 100)
    assert one.connections(5) == 5
    again = part(0)
    assert again.connections(0) == 0
    assert again.reserve(100, 100)
    assert again.admit(ANA, 2, 2) == 0
    assert again.admit(ANA, 2, 2) == "there are 2 already", "the other process still has its own"


def _admit_many(path: Path, number: int) -> int:
    memory = os.open(path, os.O_RDWR)
    counts = shared(memory, number, 4, 64)
    return sum(isinstance(counts.admit(ANA, 20, 64), int) for _ in range(20))


def test_no_two_processes_take_the_last_place() -> None:
    memory = SharedCounts.allocate(4, 64)
    path = Path(f"/proc/{os.getpid()}/fd/{memory}")
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        taken = pool.starmap(_admit_many, [(path, number) for number in range(4)])
    os.close(memory)
    assert sum(taken) == 20


def test_a_process_knows_how_many_connections_it_has_more_than_another(part: Callable[[int], SharedCounts]) -> None:
    first, second = part(0), part(1)
    assert first.lead(0) == 0
    assert first.lead(3) == 3
    second.connections(2)
    assert first.lead(3) == 1
    assert first.lead(1) == 0
    assert LocalCounts().lead(7) == 0
