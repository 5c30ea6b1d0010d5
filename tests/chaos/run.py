"""One run: series are sent, faults are done, and everything is accounted for."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from tests.chaos.account import Account, take_account
from tests.chaos.faults import FAULTS, STAGES, Fault, stands_in
from tests.chaos.plant import Plant
from tests.chaos.sender import Sender, SendLog, make_series
from worker.errors import UnavailableError
from worker.tables import Series

_AHEAD = 4  # so many series more than are done may have been begun: every stage has work at every moment


@dataclass(frozen=True)
class Run:
    """What was done in a run, and its account."""

    seed: int
    servers: bool
    slices: int
    faults: Counter[tuple[str, str]]
    restarts: int
    refused: int
    seconds: float
    account: Account
    log: SendLog

    def by_stage(self) -> dict[str, int]:
        """Return how many faults fell into each stage."""
        return {stage: sum(count for (at, _), count in self.faults.items() if at == stage) for stage in STAGES}


def run(
    folder: Path,
    *,
    seed: int,
    series: int,
    slices: int,
    faults: int,
    servers: bool,
    patience: float,
    small_disk: bool = True,
    say: Callable[[str], None] = lambda _line: None,
) -> Run:
    """Do a run; `patience`: seconds without any progress after which it ends, and is accounted for as it stands.

    small_disk: give the spool a disk of its own, to be filled, where this process may.
    """
    chance = random.Random(seed)
    sendings = make_series(folder / "in", seed, series, slices)
    plant = Plant(folder / "plant", servers=servers)
    started = time.monotonic()
    done: Counter[tuple[str, str]] = Counter()
    try:
        # Where no disk may be mounted none is filled, and the table shows it.
        small_disk = small_disk and plant.mount_small_disk(64 + series * slices // 8)
        planned = _plan(chance, faults, servers=servers, small_disk=small_disk)
        plant.start()
        sender = Sender(plant.to_us.port, sendings)
        last, seen = time.monotonic(), (0, 0)
        next_fault = time.monotonic()
        while time.monotonic() - last < patience:
            plant.tend()
            reported = _reported(plant)
            sender.allowed = reported + _AHEAD
            sender.linger = _must_come_now(planned, sender)
            if time.monotonic() >= next_fault:
                fault = next(
                    (each for each in _in_order(planned, sender) if stands_in(each.stage, plant, sender)), None
                )
                if fault is not None:
                    planned.remove(fault)
                    fault.do(plant)
                    done[fault.stage, fault.name] += 1
                    say(f"{time.monotonic() - started:6.1f} s  {reported:4d} reported  {fault.stage}: {fault.name}")
                    # Spread over the run, and never so dense that nothing gets done between two of them.
                    left = max(1, len(planned))
                    next_fault = time.monotonic() + chance.uniform(0.3, 1.2) * min(
                        8.0, (series - reported) * 1.5 / left
                    )
            progress = (reported, len(sender.log.acknowledged))
            if progress != seen:
                last, seen = time.monotonic(), progress
            if sender.done and reported == series:
                break
            time.sleep(0.02)
        sender.stopped = True
        time.sleep(3)  # what is delivered twice would come now
        account = take_account(sender.log, plant.data, plant.reports(), plant.database)
        if account.series < series:
            account.lost.append(f"{series - account.series} series were never taken")
        return Run(
            seed=seed,
            servers=servers,
            slices=slices,
            faults=done,
            restarts=plant.restarts,
            refused=sender.log.refused,
            seconds=time.monotonic() - started,
            account=account,
            log=sender.log,
        )
    finally:
        plant.close()


def _plan(chance: random.Random, count: int, *, servers: bool, small_disk: bool) -> list[Fault]:
    """Draw faults, as many for each stage, in a random order."""
    drawn: list[Fault] = []
    first = {stage: chance.randrange(len(FAULTS)) for stage in STAGES}  # a short run has other kinds for each seed
    for number in range(count):
        stage = STAGES[number % len(STAGES)]
        possible = [
            fault
            for fault in FAULTS
            if fault.stage == stage and (servers or not fault.servers) and (small_disk or not fault.small_disk)
        ]
        drawn.append(possible[(first[stage] + number // len(STAGES)) % len(possible)])
    chance.shuffle(drawn)
    return drawn


def _in_order(planned: list[Fault], sender: Sender) -> list[Fault]:
    """Return the faults as they were drawn; towards the end of the sendings those that need one come first."""
    if not _must_come_now(planned, sender):
        return planned
    return [fault for fault in planned if fault.stage == "receiving"]


def _must_come_now(planned: list[Fault], sender: Sender) -> bool:
    """Whether there are hardly more sendings left than faults that need one."""
    wanted = sum(fault.stage == "receiving" for fault in planned)
    return not sender.done and sender.waiting <= wanted and wanted > 0


def _reported(plant: Plant) -> int:
    """How many series are at their end; only to pace the sender: the account asks others."""
    try:
        with plant.database.read() as session:
            latest = select(func.max(Series.id)).group_by(Series.series_uid)
            waiting = select(Series.series_uid).where(Series.state == "classified")
            ended = Series.id.in_(latest), Series.state == "reported", Series.series_uid.not_in(waiting)
            return session.scalar(select(func.count()).select_from(Series).where(*ended)) or 0
    except UnavailableError:
        return 0
