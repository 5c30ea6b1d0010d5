"""A hospital's day, or a network's, simulated from stage times that were measured: what it takes, what gives way first.

Exams arrive as a Poisson process whose rate follows the hour of the day; each waits for a free worker, the first come
first. Everything else is counted: what each part is asked for in the busiest hour, over what it can do.
"""

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The part of a day's exams that begins in each hour: scanners run from seven to six, the emergency room all night.
_BY_HOUR = np.array([1, 1, 1, 1, 1, 1, 2, 6, 9, 10, 10, 9, 8, 9, 9, 8, 6, 4, 3, 2, 2, 1, 1, 1], dtype=float)
SLICES, SLICE_MB = 300, 0.53
PATIENCE_SECONDS = 300.0  # nineteen of twenty reports are to be there so soon after the last slice


@dataclass(frozen=True)
class StageTimes:
    """What was measured. classify: of an exam on its worker alone; deliver: report and sending; both in s.

    sql, broker: time that the servers work for an exam, in s. intake: slices a second over several associations.
    connections: to the database, of a worker.
    """

    classify: float
    deliver: float
    sql: float
    broker: float
    intake: float
    connections: int


@dataclass(frozen=True)
class Need:
    """What a day needs. wait: that 19 of 20 exams do not exceed, from complete to delivered, in s.

    gigabytes: of slices a day. load: of each part in the busiest hour, 1 where it can do no more; of workers, with
    the number that is needed.
    """

    exams: int
    workers: int
    wait: float
    connections: int
    gigabytes: float
    load: dict[str, float]

    @property
    def first(self) -> str:
        """The part that gives way first, of those that cannot be had more of by starting another worker."""
        return max((name for name in self.load if name != "workers"), key=lambda name: self.load[name])


def arrivals(exams_a_day: float, seed: int) -> NDArray[np.float64]:
    """Draw the times of a day at which exams are complete, in s, ascending."""
    rng = np.random.default_rng(seed)
    rates = exams_a_day * _BY_HOUR / _BY_HOUR.sum()
    times = [hour * 3600 + rng.uniform(0, 3600, rng.poisson(rate)) for hour, rate in enumerate(rates)]
    return np.sort(np.concatenate(times))


def waits(times: NDArray[np.float64], workers: int, seconds: float) -> NDArray[np.float64]:
    """Return for each exam how long it takes from complete to done with so many workers, in s."""
    free = [0.0] * workers
    done = []
    for moment in times:
        end = max(moment, heapq.heappop(free)) + seconds
        heapq.heappush(free, end)
        done.append(end - moment)
    return np.array(done)


def plan(exams_a_day: float, times: StageTimes, seed: int) -> Need:
    """Return the fewest workers that keep reports within patience, and what the rest is asked for."""
    moments = arrivals(exams_a_day, seed)
    service = times.classify + times.deliver
    workers = 1
    while np.quantile(waits(moments, workers, service), 0.95) > PATIENCE_SECONDS:
        workers += 1
    busiest = max(np.histogram(moments, bins=24, range=(0, 86400))[0].tolist()) / 3600
    return Need(
        exams=len(moments),
        workers=workers,
        wait=float(np.quantile(waits(moments, workers, service), 0.95)),
        connections=workers * times.connections,
        gigabytes=len(moments) * SLICES * SLICE_MB / 1000,
        load={
            "workers": busiest * service / workers,
            "listener": busiest * SLICES / times.intake,
            "gigabit line": busiest * SLICES * SLICE_MB * 8 / 1000,
            "database": busiest * times.sql,
            "broker": busiest * times.broker,
        },
    )


def breaking_point(times: StageTimes, need: Need) -> float:
    """How many times the exams of `need` until the part that gives way first can do no more."""
    return math.inf if not need.load[need.first] else 1 / need.load[need.first]
