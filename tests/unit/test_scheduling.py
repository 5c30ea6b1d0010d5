"""A thread that computes waits for its turn, and only while it computes."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.scheduling import computing

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the policy for batches is Linux's")


@pytest.fixture
def ordinary() -> Iterator[ThreadPoolExecutor]:
    """A thread in the ordinary policy, whatever one the tests run in."""
    with ThreadPoolExecutor(1) as beside:
        beside.submit(os.sched_setscheduler, 0, os.SCHED_OTHER, os.sched_param(0)).result()
        yield beside


def test_a_thread_and_those_it_starts_compute_as_a_batch_and_no_longer(ordinary: ThreadPoolExecutor) -> None:
    @computing()
    def fail() -> None:
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(os.sched_getscheduler, 0).result() == os.SCHED_BATCH
        raise EOFError

    with pytest.raises(EOFError):
        ordinary.submit(fail).result()
    assert ordinary.submit(os.sched_getscheduler, 0).result() == os.SCHED_OTHER


def test_other_threads_stay_as_they_are(ordinary: ThreadPoolExecutor) -> None:
    with computing():
        assert ordinary.submit(os.sched_getscheduler, 0).result() == os.SCHED_OTHER


def test_a_policy_that_somebody_chose_stays() -> None:
    def idle() -> tuple[int, int]:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with computing():
            within = os.sched_getscheduler(0)
        return within, os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as beside:  # its thread ends with it
        assert beside.submit(idle).result() == (os.SCHED_IDLE, os.SCHED_IDLE)


@pytest.mark.parametrize("forbidden", ["sched_getscheduler", "sched_setscheduler"])
def test_where_it_is_forbidden_all_stays_as_it_was(
    ordinary: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    asked = os.sched_getscheduler

    def refuse(*_arguments: object) -> None:
        raise PermissionError

    def compute() -> int:
        with computing():
            return asked(0)

    monkeypatch.setattr(os, forbidden, refuse)
    assert ordinary.submit(compute).result() == os.SCHED_OTHER
