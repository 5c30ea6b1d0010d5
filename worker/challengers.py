"""Challengers: candidates of a retraining that were not promoted, as long as the model that they challenge is active.

Nothing is written down about that: who challenges whom follows from retrainings and promotions. So a promotion ends all
challenges to the model before, one that was promoted and rolled back challenges nobody any more, and after a rollback
those that had challenged the older model do so again.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from worker import exams, training_runs
from worker.database import Database, now
from worker.errors import WorkerError
from worker.registry import Registry
from worker.tables import ChallengerResult, Classification, ModelVersion, Promotion, Series, TrainingRun
from worker.training_runs import RunState


def challengers(session: Session, active: ModelVersion | None) -> list[ModelVersion]:
    """Return the versions that challenge the active one, the newest first."""
    if active is None:
        return []
    made = exists().where(TrainingRun.model_id == ModelVersion.id, TrainingRun.state == RunState.DONE)
    served = exists().where(Promotion.model_id == ModelVersion.id)
    query = select(ModelVersion).where(ModelVersion.parent_id == active.id, ~ModelVersion.active, made, ~served)
    return list(session.scalars(query.order_by(ModelVersion.id.desc())))


def due(session: Session, registry: Registry, days: int) -> tuple[ModelVersion, int] | None:
    """Return the newest challenger and the classification that it shall look at next; None where nothing is due."""
    active = registry.active(session)
    found = challengers(session, active)
    if active is None or not found:
        return None
    challenger = found[0]
    looked_at = exists().where(
        ChallengerResult.model_id == challenger.id,
        ChallengerResult.classification_id == Classification.id,
        settled(),
    )
    classification_id = session.scalar(
        select(Classification.id)
        .join(Series, Series.id == Classification.series_id)
        .where(
            Classification.model_id == active.id,
            Classification.classified_at > now() - timedelta(days=days),
            Series.withdrawn_at.is_(None),
            Series.pixels_removed_at.is_(None),
            exams.latest_revisions(),
            ~looked_at,
        )
        .order_by(Classification.id.desc())
        .limit(1)
    )
    return None if classification_id is None else (challenger, classification_id)


def settled() -> Any:
    """Return the condition for an exam that nobody shall begin: done, in work, or begun too often."""
    return or_(
        ChallengerResult.classified_at.is_not(None),
        # Where there is no lease the comparison alone is unknown to SQL, and so is its opposite.
        ChallengerResult.lease_until.is_not(None) & (ChallengerResult.lease_until > now()),
        ChallengerResult.attempts >= exams.MAX_ATTEMPTS,
    )


def safety(session: Session, version: ModelVersion) -> str | None:
    """Return the sentence that a version carries which was not shown to be safe; None for all others."""
    patients = training_runs.not_shown(training_runs.of_model(session, version.id))
    return None if patients is None else f"Not shown to be safe: {patients} patients."


def promote(
    database: Database, registry: Registry, name: str, *, actor: str, because: str | None, despite: str = ""
) -> ModelVersion:
    """Make a version active for a person. despite: why, although it named what it must not.

    Raises WorkerError where a retraining did not show it to be safe, and nobody says why it shall serve all the same;
    and what `Registry.promote` raises.
    """
    with database.read() as session:
        version = registry.find(session, name)
        carried = safety(session, version)
    reason = (because or "").strip()
    if carried is not None and not version.active and not reason:
        raise WorkerError(f'{carried} Say why it shall serve all the same: --because "why".')
    stated = f"{reason} ({carried})" if carried and reason else reason
    return registry.promote(name, actor=actor, reason=stated, despite=despite)
