"""A thread that computes waits for its turn, and only while it computes."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.scheduling import computing

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the policy for batches is Linux's")


def test_a_thread_and_those_it_starts_compute_as_a_batch_and_no_longer() -> None:
    before = os.sched_getscheduler(0)

    @computing()
    def fail(beside: ThreadPoolExecutor) -> None:
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        assert beside.submit(os.sched_getscheduler, 0).result() == before
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(os.sched_getscheduler, 0).result() == os.SCHED_BATCH
        raise EOFError

    with ThreadPoolExecutor(1) as beside:
        beside.submit(int).result()
        with pytest.raises(EOFError):
            fail(beside)
    assert os.sched_getscheduler(0) == before


def test_a_policy_that_somebody_chose_stays() -> None:
    def idle() -> tuple[int, int]:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with computing():
            within = os.sched_getscheduler(0)
        return within, os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as beside:  # its thread ends with it
        assert beside.submit(idle).result() == (os.SCHED_IDLE, os.SCHED_IDLE)


@pytest.mark.parametrize("forbidden", ["sched_getscheduler", "sched_setscheduler"])
def test_where_it_is_forbidden_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch, forbidden: str) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError

    asked = os.sched_getscheduler
    before = asked(0)
    monkeypatch.setattr(os, forbidden, refuse)
    with computing():
        assert asked(0) == before
    assert asked(0) == before
