"""The state machine of a series: who may take it, keep it, finish it.

What workers do at once is one conditional UPDATE; what people ask for happens under a lock of the row.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from sqlalchemy import CursorResult, and_, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from pacs.series import Patient
from worker import audit
from worker.database import Database, now
from worker.errors import LeaseLostError, NotFoundError, WorkerError
from worker.states import WITHOUT_RESULT, Completeness, State
from worker.tables import Classification, Delivery, Instance, RejectedInstance, Series, Study

LEASE = timedelta(minutes=2)
MAX_ATTEMPTS = 3
RETRY_AFTER = timedelta(seconds=20)
# An urgent exam counts as queued so much earlier: it passes, but a routine one that waited as long goes first.
URGENT_HEAD_START = timedelta(minutes=30)
PUT_BACK_FOR = timedelta(minutes=1)
_LONGEST_REASON = 500
NOT_PREFERRED = "not_preferred"


@dataclass(frozen=True)
class Claim:
    """An exam that this worker classifies; `paths` are those of all its instances. attempts: with this one.

    missing: how many instances the PACS has of it that did not come.
    """

    series_id: int
    series_uid: str
    study_uid: str
    revision: int
    owner: str
    paths: tuple[Path, ...]
    lease: timedelta
    attempts: int
    missing: int = 0


def waiting(moment: datetime, *, together: timedelta | None = None) -> Any:
    """Return the condition for an exam that can be claimed at a moment.

    together: not while another series of its study still comes in, for that one may speak for the study; but no longer
    than this after its last instance.
    """
    due = or_(Series.not_before.is_(None), Series.not_before <= moment)
    if together is None:
        return and_(Series.state == State.QUEUED, due)
    other = aliased(Series)
    coming = exists().where(
        other.study_id == Series.study_id,
        other.series_uid != Series.series_uid,
        other.state == State.RECEIVING,
        other.last_instance_at > moment - together,
    )
    return and_(Series.state == State.QUEUED, due, ~coming)


def claim(
    database: Database, data_dir: Path, owner: str, lease: timedelta = LEASE, *, together: timedelta | None = None
) -> Claim | None:
    """Take the exam that comes next, or None where none waits. together: as for `waiting`."""
    with database.write() as session:
        while True:
            moment = now()
            next_id = session.scalar(
                select(Series.id)
                .where(waiting(moment, together=together))
                .order_by(Series.precedence, Series.id)
                .limit(1)
            )
            if next_id is None:
                return None
            taken = _update(
                session,
                update(Series)
                .where(Series.id == next_id, Series.state == State.QUEUED)
                .values(
                    state=State.CLASSIFYING,
                    lease_owner=owner,
                    lease_until=moment + lease,
                    attempts=Series.attempts + 1,
                ),
            )
            if taken:
                break
        series = session.get_one(Series, next_id)
        session.refresh(series)
        return Claim(
            series_id=series.id,
            series_uid=series.series_uid,
            study_uid=series.study.study_uid,
            revision=series.revision,
            owner=owner,
            paths=instance_paths(session, series, data_dir),
            lease=lease,
            attempts=series.attempts,
            missing=missing(series),
        )


def missing(series: Series) -> int:
    """Return how many instances of a revision the PACS has that did not come; 0 where it was not asked."""
    return max(0, (series.expected_count or 0) - series.instance_count)


def instance_paths(session: Session, series: Series, data_dir: Path) -> tuple[Path, ...]:
    """Return the files of a revision: its own instances and those of the revisions before.

    Of an instance that came with several contents the last one counts; one that a note rejects does not count.
    """
    rejected = select(RejectedInstance.sop_uid).where(RejectedInstance.study_uid == series.study.study_uid)
    rows = session.execute(
        select(Instance.sop_uid, Instance.path)
        .where(Instance.series_id.in_(_revisions_up_to(series)), Instance.sop_uid.not_in(rejected))
        .order_by(Instance.id)
    )
    latest = {row.sop_uid: row.path for row in rows}
    return tuple(data_dir / path for path in latest.values())


def rejected_instances(session: Session, study_uid: str) -> set[str]:
    """Return the UIDs of the instances of a study that rejection notes name."""
    return set(session.scalars(select(RejectedInstance.sop_uid).where(RejectedInstance.study_uid == study_uid)))


def renew(database: Database, held: Claim) -> None:
    """Keep the exam for another lease. Raises LeaseLostError."""
    with database.write() as session:
        if not _update(session, update(Series).where(*_mine(held)).values(lease_until=now() + held.lease)):
            raise LeaseLostError(f"The lease of series {held.series_uid} was lost.")


def finish(session: Session, held: Claim, state: State, code: str | None = None, reason: str | None = None) -> None:
    """End the claim with a state, within the transaction that stores the result. Raises LeaseLostError."""
    values: dict[str, Any] = {
        "state": state,
        "reason_code": code,
        "reason": reason,
        "lease_owner": None,
        "lease_until": None,
        "woken_at": None,
        "not_before": None,
        "ended_at": now() if state in WITHOUT_RESULT else None,
    }
    if not _update(session, update(Series).where(*_mine(held)).values(**values)):
        raise LeaseLostError(f"The lease of series {held.series_uid} was lost.")
    audit.record(session, f"series {state}", held.series_uid, revision=held.revision, reason_code=code)
    if state in WITHOUT_RESULT and code != NOT_PREFERRED:
        call_others(session, session.get_one(Series, held.series_id))


def end(session: Session, series: Series, state: State, code: str, reason: str, *, actor: str = audit.SYSTEM) -> None:
    """End a revision, which is locked, without a result; another series of its study may speak then."""
    series.state, series.reason_code, series.reason, series.ended_at = state, code, reason, now()
    series.lease_owner = series.lease_until = series.woken_at = series.not_before = None
    audit.record(session, f"series {state}", series.series_uid, actor=actor, revision=series.revision, reason_code=code)
    if code != NOT_PREFERRED:
        call_others(session, series)


def call_others(session: Session, series: Series) -> None:
    """Queue again what was set aside because of a series that, as it turns out, does not speak for its study."""
    if session.scalar(select(Series.id).where(spoke(series)).limit(1)) is not None:
        return  # an earlier revision of it spoke, and its report stands
    aside = select(Series).where(
        Series.study_id == series.study_id,
        Series.series_uid != series.series_uid,
        Series.state == State.REJECTED,
        Series.reason_code == NOT_PREFERRED,
        latest_revisions(),
    )
    for other in session.scalars(aside.with_for_update()):
        other.reason_code = other.reason = None
        queue(session, other, Completeness(other.completeness or Completeness.QUIET_PERIOD))


def spoke(series: Any) -> Any:
    """Return the condition for a revision of a series that was classified, and whose result stands."""
    return and_(
        Series.study_id == series.study_id,
        Series.series_uid == series.series_uid,
        Series.withdrawn_at.is_(None),
        exists().where(Classification.series_id == Series.id),
    )


def lock_study(session: Session, held: Claim) -> None:
    """Let nobody else decide about a series of this study until the transaction ends."""
    study = select(Series.study_id).where(Series.id == held.series_id).scalar_subquery()
    session.execute(select(Study.id).where(Study.id == study).with_for_update())


def put_back(database: Database, held: Claim, code: str, reason: str) -> None:
    """End a claim for no fault of the exam: it waits a while, and the attempt does not count. Raises LeaseLostError."""
    with database.write() as session:
        finish(session, held, State.QUEUED, code, reason)
        series = session.get_one(Series, held.series_id)
        series.attempts, series.not_before = max(0, series.attempts - 1), now() + PUT_BACK_FOR


def give_up(database: Database, held: Claim, code: str, reason: str) -> None:
    """End a claim that went wrong: the exam waits for another attempt, or fails after the last one.

    Raises LeaseLostError.
    """
    reason = reason.replace("\0", "").strip().splitlines()[0][:_LONGEST_REASON] if reason.strip() else code
    with database.write() as session:
        series = session.get_one(Series, held.series_id)
        if series.attempts >= MAX_ATTEMPTS:
            finish(session, held, State.FAILED, code, reason)
        else:
            finish(session, held, State.QUEUED, code, reason)
            series.not_before = now() + RETRY_AFTER * series.attempts


def end_leases(database: Database, owners: str) -> None:
    """End the leases of all owners whose names begin so: they are known to be dead."""
    held = Series.lease_owner.startswith(owners, autoescape=True)
    sending = Delivery.lease_owner.startswith(owners, autoescape=True)
    with database.write() as session:
        session.execute(update(Series).where(Series.state == State.CLASSIFYING, held).values(lease_until=now()))
        session.execute(update(Delivery).where(sending).values(lease_until=now()))


def release_expired(database: Database) -> int:
    """Take back what dead workers hold; what killed its worker too often fails. Return how many."""
    with database.write() as session:
        expired = list(
            session.scalars(
                select(Series)
                .where(Series.state == State.CLASSIFYING, Series.lease_until < now())
                # A worker that finishes at this moment keeps its result.
                .with_for_update(skip_locked=True)
            )
        )
        for series in expired:
            dead = f"The worker that classified it died or hung ({series.attempts} of {MAX_ATTEMPTS} attempts)."
            if series.attempts >= MAX_ATTEMPTS:
                end(session, series, State.FAILED, "worker_died", dead)
                continue
            series.state, series.reason_code, series.reason = State.QUEUED, "worker_died", dead
            series.lease_owner = series.lease_until = series.woken_at = None
            audit.record(session, "series queued", series.series_uid, reason_code="worker_died")
        return len(expired)


def queue(session: Session, series: Series, completeness: Completeness) -> None:
    """Put a complete revision into the queue."""
    moment = now()
    series.state = State.QUEUED
    series.completeness = completeness
    series.queued_at = moment
    series.precedence = moment - URGENT_HEAD_START if series.urgent else moment
    series.attempts, series.not_before, series.woken_at, series.ended_at = 0, None, None, None
    audit.record(session, "series queued", series.series_uid, revision=series.revision, completeness=completeness)


def next_revision(series: Series, received_at: datetime, last_instance_at: datetime) -> Series:
    """Return the revision after `series`, still receiving, with what stays the same."""
    return Series(
        study=series.study,
        series_uid=series.series_uid,
        revision=series.revision + 1,
        state=State.RECEIVING,
        patient_id=series.patient_id,
        patient_issuer=series.patient_issuer,
        patient_name=series.patient_name,
        sender=series.sender,
        description=series.description,
        kernel=series.kernel,
        thickness_mm=series.thickness_mm,
        urgent=series.urgent,
        instance_count=series.instance_count,
        pixels_removed_at=series.pixels_removed_at,
        received_at=received_at,
        last_instance_at=last_instance_at,
    )


def latest(session: Session, series_uid: str, *, lock: bool = False) -> Series:
    """Return the latest revision of a series. Raises NotFoundError, WorkerError where two studies hold the UID."""
    query = select(Series).where(Series.series_uid == series_uid, latest_revisions())
    found = list(session.scalars(query.with_for_update() if lock else query))
    if not found:
        raise NotFoundError(f"There is no series {series_uid}: see 'reticula exams list'.")
    if len(found) > 1:
        raise WorkerError(f"Series {series_uid} came under {len(found)} studies: settle in the PACS where it belongs.")
    return found[0]


def of_the_series(series: Any) -> Any:
    """Return the condition for the revisions of a series."""
    return and_(Series.series_uid == series.series_uid, Series.study_id == series.study_id)


def latest_revisions(series: Any = Series) -> Any:
    """Return a condition that keeps the latest revision of each series."""
    later = aliased(Series)
    return ~exists().where(
        and_(
            later.series_uid == series.series_uid,
            later.study_id == series.study_id,
            later.revision > series.revision,
        )
    )


def patient_conflict(session: Session, held: Claim, *patient: Patient) -> str | None:
    """Return the sentence that forbids to report the exam, where its study names another patient elsewhere.

    patient: as the header and as SQL has them, for what was stored before a key was set stays as it was.
    """
    series = session.get_one(Series, held.series_id)
    others = session.scalars(
        select(Series).where(Series.study_id == series.study_id, Series.series_uid != series.series_uid)
    )
    stored = (Patient(other.patient_id, other.patient_issuer, other.patient_name, "", "") for other in others)
    if any(any(other.identity) and not any(map(other.is_same_as, patient)) for other in stored):
        return "Other series of the same study name another patient: whose exam this is must be settled first."
    elsewhere = select(Series.id).where(Series.series_uid == series.series_uid, Series.study_id != series.study_id)
    if session.scalar(elsewhere.limit(1)) is not None:
        return "The same series UID came under another study: which one it belongs to must be settled first."
    return None


def _mine(held: Claim) -> tuple[Any, ...]:
    return Series.id == held.series_id, Series.state == State.CLASSIFYING, Series.lease_owner == held.owner


def _revisions_up_to(series: Series) -> Any:
    return select(Series.id).where(
        Series.series_uid == series.series_uid,
        Series.study_id == series.study_id,
        Series.revision <= series.revision,
    )


def _update(session: Session, statement: Any) -> int:
    """Run an UPDATE and return how many rows it changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
