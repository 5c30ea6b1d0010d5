"""Turns at the processor: who feeds the network does not interrupt it."""

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
    if not _is_ordinary():
        yield
        return
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _is_ordinary() -> bool:
    try:
        return hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER
    except OSError:
        return False
