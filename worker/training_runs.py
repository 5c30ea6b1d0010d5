"""Retrainings that were asked for: who runs one, how far it is, what came of it. SQL is the truth, as with exams."""

import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, exists, or_, select, update
from sqlalchemy.orm import Session

from worker import audit
from worker.database import Database, now
from worker.errors import LeaseLostError, WorkerError
from worker.tables import ModelVersion, Promotion, TrainingRun

if TYPE_CHECKING:
    from training.promotion.groups import Asked

LEASE = timedelta(minutes=10)
MAX_ATTEMPTS = 3
_LONGEST_OUTCOME = 1000


class RunState(StrEnum):
    """Where a retraining stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


UNDER_WAY = (RunState.QUEUED, RunState.RUNNING)


@dataclass(frozen=True)
class HeldRun:
    """A retraining that this process runs. attempts: how often it was begun, this time included."""

    id: int
    owner: str
    options: dict[str, Any]
    requested_by: str
    attempts: int


def request(database: Database, options: dict[str, Any], *, actor: str, owner: str | None = None) -> int:
    """Ask for a retraining; return its number. With an owner, nobody else can take it before.

    Raises WorkerError while another one is under way.
    """
    with database.write() as session:
        # Whoever asks at the same moment waits here.
        session.scalars(select(ModelVersion.id).order_by(ModelVersion.id).with_for_update()).all()
        other = session.scalar(select(TrainingRun.id).where(TrainingRun.state.in_(UNDER_WAY)).limit(1))
        if other is not None:
            raise WorkerError(f"Retraining {other} is under way: wait until it is done ('reticula models list').")
        run = TrainingRun(
            state=RunState.QUEUED,
            options=options,
            requested_by=actor[:128],
            requested_at=now(),
            stage="waiting",
            lease_owner=owner,
        )
        session.add(run)
        session.flush()
        audit.record(session, "retraining asked", str(run.id), actor=actor, **options)
        return run.id


def new_owner() -> str:
    """Return a name that nobody else has."""
    return f"{socket.gethostname()[:24]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def claim(database: Database, number: int, owner: str) -> HeldRun | None:
    """Take a run that waits; None where another was faster."""
    with database.write() as session:
        taken = _update(
            session,
            update(TrainingRun)
            .where(TrainingRun.id == number, TrainingRun.state == RunState.QUEUED)
            .where(or_(TrainingRun.lease_owner.is_(None), TrainingRun.lease_owner == owner))
            .values(
                state=RunState.RUNNING,
                lease_owner=owner,
                lease_until=now() + LEASE,
                attempts=TrainingRun.attempts + 1,
                stage="starting",
            ),
        )
        if not taken:
            return None
        run = session.get_one(TrainingRun, number)
        session.refresh(run)
        return HeldRun(run.id, owner, run.options, run.requested_by, run.attempts)


def progress(database: Database, held: HeldRun, stage: str, done: int | None, total: int | None) -> None:
    """Say how far a run is. Raises LeaseLostError."""
    _renew(database, held, stage=stage[:64], done=done, total=total)


def keep(database: Database, held: HeldRun) -> None:
    """Keep a run for another lease. Raises LeaseLostError."""
    _renew(database, held)


def finish(
    session: Session,
    held: HeldRun,
    state: RunState,
    outcome: str,
    figures: dict[str, Any] | None = None,
    model_id: int | None = None,
) -> None:
    """End a run with what came of it, in the transaction that made it so. Raises LeaseLostError."""
    values = {
        "state": state,
        "outcome": outcome[:_LONGEST_OUTCOME],
        "figures": figures,
        "model_id": model_id,
        "stage": str(state),
        "finished_at": now(),
        "lease_owner": None,
        "lease_until": None,
    }
    if not _update(session, update(TrainingRun).where(*_mine(held)).values(**values)):
        raise LeaseLostError(f"The lease of retraining {held.id} was lost.")
    audit.record(session, f"retraining {state}", str(held.id), outcome=outcome[:_LONGEST_OUTCOME])


def release_expired(database: Database) -> int:
    """Take back what dead processes ran; it goes on from its last epoch. What died too often fails. Return how many."""
    with database.write() as session:
        expired = list(
            session.scalars(
                select(TrainingRun)
                .where(TrainingRun.state == RunState.RUNNING, TrainingRun.lease_until < now())
                .with_for_update(skip_locked=True)
            )
        )
        for run in expired:
            _take_back(run, "The process that trained died or hung.")
        return len(expired)


def give_back(database: Database, number: int, owner: str, why: str, *, counts: bool) -> None:
    """Take back a run whose process has ended without ending it; `counts`: as an attempt that went wrong.

    A process that ended before it took the run counts as an attempt too. What another process holds is left alone.
    """
    with database.write() as session:
        run = session.scalar(select(TrainingRun).where(TrainingRun.id == number).with_for_update())
        if run is None or not (run.state == RunState.QUEUED or run.lease_owner == owner):
            return
        held = run.state == RunState.RUNNING
        run.attempts += (0 if counts else -1) if held else (1 if counts else 0)
        _take_back(run, why)


def waiting(session: Session) -> Sequence[int]:
    """Return the runs that nobody has taken."""
    return session.scalars(
        select(TrainingRun.id)
        .where(TrainingRun.state == RunState.QUEUED, TrainingRun.lease_owner.is_(None))
        .order_by(TrainingRun.id)
    ).all()


def listed(session: Session) -> list[TrainingRun]:
    """Return all runs, the newest first."""
    return list(session.scalars(select(TrainingRun).order_by(TrainingRun.id.desc())))


def as_json(run: TrainingRun) -> dict[str, Any]:
    """Return a run as scripts read it."""
    return {
        "id": run.id,
        "state": run.state,
        "stage": run.stage,
        "done": run.done,
        "total": run.total,
        "requested_by": run.requested_by,
        "requested_at": run.requested_at.isoformat(),
        "finished_at": None if run.finished_at is None else run.finished_at.isoformat(),
        "outcome": run.outcome,
        "figures": _shown(run.figures),
    }


def decisions(session: Session) -> tuple[str | None, "list[Asked]"]:
    """Return what was asked about earlier candidates, and the salt of the patients' hashes; it is the same for all."""
    from training.promotion.groups import Asked

    served = exists().where(Promotion.model_id == TrainingRun.model_id)
    salt, earlier = None, []
    for run, has_served in session.execute(select(TrainingRun, served).order_by(TrainingRun.id)):
        figures = run.figures or {}
        if run.state == RunState.DONE and "asked" in figures:
            salt = salt or figures["asked"]["salt"]
            hashes = frozenset(figures["asked"]["patients"])
            earlier.append(Asked(figures["group"], hashes, figures["alpha"], has_served))
    return salt, earlier


def of_model(session: Session, model_id: int) -> TrainingRun | None:
    """Return the retraining that made a model; None where it came from elsewhere."""
    return session.scalar(
        select(TrainingRun)
        .where(TrainingRun.model_id == model_id, TrainingRun.state == RunState.DONE)
        .order_by(TrainingRun.id.desc())
        .limit(1)
    )


def not_shown(run: TrainingRun | None) -> int | None:
    """Return on how many patients a candidate was not shown to be safe; None where it was, or was never one."""
    if run is None or run.figures is None or run.figures.get("promote") or run.figures.get("shown"):
        return None
    return int(run.figures.get("patients", 0))


def _shown(figures: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return figures without the hashes of patients, which nobody reads."""
    if figures is None or "asked" not in figures:
        return figures
    return {**figures, "asked": len(figures["asked"]["patients"])}


def due_to_wake(stale_before: Any) -> Any:
    """Return a condition for runs that wait and were not woken lately."""
    return (
        (TrainingRun.state == RunState.QUEUED)
        & TrainingRun.lease_owner.is_(None)
        & or_(TrainingRun.woken_at.is_(None), TrainingRun.woken_at < stale_before)
    )


def _take_back(run: TrainingRun, why: str) -> None:
    run.lease_owner = run.lease_until = run.woken_at = None
    if run.attempts >= MAX_ATTEMPTS:
        run.state, run.finished_at, run.outcome = RunState.FAILED, now(), f"{why} It was begun {run.attempts} times."
    else:
        run.state, run.stage = RunState.QUEUED, "waiting to go on"


def _renew(database: Database, held: HeldRun, **values: Any) -> None:
    with database.write() as session:
        if not _update(session, update(TrainingRun).where(*_mine(held)).values(lease_until=now() + LEASE, **values)):
            raise LeaseLostError(f"The lease of retraining {held.id} was lost.")


def _mine(held: HeldRun) -> tuple[Any, ...]:
    return TrainingRun.id == held.id, TrainingRun.state == RunState.RUNNING, TrainingRun.lease_owner == held.owner


def _update(session: Session, statement: Any) -> int:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
