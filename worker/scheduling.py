"""Turns at the processor: who computes for seconds does not interrupt who computes, and never who must answer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def computing() -> Iterator[None]:
    """Run the calling thread, and those that it starts, in Linux's policy for batches (sched(7), SCHED_BATCH).

    Its share of the processor stays the same, but it waits for its turn when it wakes: one that feeds the network
    would interrupt it at every slice and drive it out of the core's cache. Where another policy was chosen for the
    process, or the system has no such policy or forbids to choose, all stays as it was.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
