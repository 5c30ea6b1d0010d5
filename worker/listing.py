"""Exams as scripts and people read them: the JSON contract of `exams list` and `exams show`."""

from datetime import datetime
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from worker import exams, labels
from worker.results import notes_of
from worker.states import DeliveryState
from worker.tables import RETRACTION, Classification, Delivery, ModelVersion, Series, SliceResult, Study


def list_exams(session: Session, *, newest: int | None = None, state: str | None = None) -> list[dict[str, Any]]:
    """Return the latest revision of every series, the newest first; of them only so many, or those in a state."""
    wanted = exams.latest_revisions() if state is None else and_(exams.latest_revisions(), Series.state == state)
    rows = session.execute(
        select(Series, Study, Classification, ModelVersion)
        .join(Study, Study.id == Series.study_id)
        .outerjoin(Classification, Classification.series_id == Series.id)
        .outerjoin(ModelVersion, ModelVersion.id == Classification.model_id)
        .where(wanted)
        .order_by(Series.received_at.desc(), Series.id.desc())
        .limit(newest)
    )
    return [_exam(*row) for row in rows]


def show_exam(session: Session, series_uid: str) -> dict[str, Any]:
    """Return the latest revision of a series with its slices and deliveries. Raises NotFoundError."""
    series = exams.latest(session, series_uid)
    classification = series.classification
    shown = _exam(series, series.study, classification, classification.model if classification else None)
    slices: list[SliceResult] = []
    if classification is not None:
        rows = select(SliceResult).where(SliceResult.classification_id == classification.id)
        slices.extend(session.scalars(rows.order_by(SliceResult.position)))
    notes = Delivery.series_id.in_(select(Series.id).where(exams.of_the_series(series)))
    deliveries = session.scalars(
        select(Delivery)
        .where(or_(Delivery.series_id == series.id, and_(Delivery.object == RETRACTION, notes)))
        .order_by(Delivery.id)
    )
    stands = classification is not None and series.withdrawn_at is None
    shown["verdict_reason"] = (classification.verdict_reason or None) if classification and stands else None
    shown["distance"] = classification.distance if classification and stands else None
    shown["label"] = labels.current(session).get(series_uid)
    shown["description"], shown["kernel"] = series.description or None, series.kernel or None
    shown["thickness_mm"], shown["urgent"] = series.thickness_mm, series.urgent
    shown["expected_count"] = series.expected_count
    shown["scope_rule"], shown["shadow"] = series.scope_rule, series.shadow
    shown["withdrawn_at"] = _time(series.withdrawn_at)
    shown["notes"] = [] if classification is None else notes_of(classification, "en")
    shown["slices"] = [_slice(image) for image in slices]
    shown["deliveries"] = [_delivery(row) for row in deliveries]
    return shown


def _exam(
    series: Series, study: Study, classification: Classification | None, model: ModelVersion | None
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "study_uid": study.study_uid,
        "series_uid": series.series_uid,
        "revision": series.revision,
        "patient_id": series.patient_id,
        "state": series.state,
        "reason_code": series.reason_code,
        "reason": series.reason,
        "verdict": None,
        "certainty": None,
        "probabilities": None,
        "slice_count": series.instance_count,
        "slices_classified": None,
        "completeness": series.completeness,
        "software": None,
        "model": None,
        "bundle_sha256": None,
        "received_at": _time(series.received_at),
        "classified_at": None,
        "reported_at": _time(series.reported_at),
    }
    if classification is not None and model is not None:
        if series.withdrawn_at is None:  # what was taken back is no result
            shown |= {
                "verdict": classification.verdict,
                "certainty": classification.certainty,
                "probabilities": classification.probabilities,
            }
        shown |= {
            "slice_count": classification.slice_count,
            "slices_classified": classification.slices_classified,
            "software": classification.software,
            "model": f"{model.name} {model.version}",
            "bundle_sha256": model.bundle_sha256,
            "classified_at": _time(classification.classified_at),
        }
    return shown


def _slice(image: SliceResult) -> dict[str, Any]:
    return {
        "sop_uid": image.sop_uid,
        "frame": image.frame,
        "instance_number": image.instance_number,
        "position_mm": image.position_mm,
        "lung_fraction": image.lung_fraction,
        "classified": image.classified,
        "probabilities": image.probabilities,
        "key_rank": image.key_rank,
        "note": image.note,
    }


def _delivery(row: Delivery) -> dict[str, Any]:
    return {
        "destination": row.destination,
        "protocol": row.protocol,
        "object": row.object,
        "sop_class": row.sop_class_uid,
        "sop_uid": row.sop_uid,
        "state": row.state,
        "attempts": row.attempts,
        "last_error": row.last_error,
        "next_attempt_at": _time(row.next_attempt_at) if row.state == DeliveryState.PENDING else None,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
