"""Results into SQL and out of it again: what the classifier said, and what the report is given."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import and_, case, exists, insert, or_, select
from sqlalchemy.orm import Session

from models.bundle import Bundle
from pacs.codes import Language
from pacs.report import Algorithm, ClassFinding, KeySlice, Predecessor, ReportedExam, ReportedInstance
from pacs.report.exam import INCOMPLETE, OTHER_KERNEL, THICK_SLICES, UNKNOWN_KERNEL
from pacs.report.header import valid_zone
from pacs.report.wording import note_sentence, sentence
from pacs.selection import Note
from pacs.series import Patient, SeriesHeader
from worker import exams
from worker.classification import ClassifiedExam, ClassifiedSlice
from worker.database import now
from worker.errors import WorkerError
from worker.exams import Claim
from worker.rules import Preference
from worker.states import DeliveryState, State
from worker.tables import NOTICE, SR, Classification, Delivery, ModelVersion, Report, Series, SliceResult

# The pattern is a matter of thin sections: thicker ones blur reticulation and honeycombs.
_THICKEST_MM = 2.5


def store(
    session: Session,
    held: Claim,
    result: ClassifiedExam,
    bundle: Bundle,
    model: ModelVersion,
    header: SeriesHeader,
) -> None:
    """Store a result, with what SQL keeps of its header, and end its claim, all or nothing. Raises LeaseLostError."""
    exams.finish(session, held, State.CLASSIFIED)
    description, verdict = bundle.description, result.verdict
    row = Classification(
        series_id=held.series_id,
        model_id=model.id,
        software=result.software,
        precision=result.precision,
        operating_point=asdict(description.operating_point),
        classes=[asdict(known) for known in description.classes],
        verdict=verdict.verdict,
        stated=0.0 if verdict.certainty is None else verdict.certainty,
        probabilities=verdict.probabilities,
        called=verdict.called,
        verdict_code=verdict.reason_code,
        verdict_reason=verdict.reason,
        distance=verdict.distance,
        limits=str(description.data.get("limits", "")),
        despite=model.despite,
        header=asdict(header),
        notes=[asdict(note) for note in result.notes],
        slice_count=len(result.slices),
        slices_classified=result.classified,
        seconds=round(result.seconds, 3),
        classified_at=now(),
    )
    session.add(row)
    session.flush()
    names = description.class_names
    rows = [_slice_row(row.id, index, image, names) for index, image in enumerate(result.slices)]
    session.execute(insert(SliceResult), rows)


def reported_exam(
    session: Session, series: Series, *, language: Language, final: bool, header: SeriesHeader | None = None
) -> ReportedExam:
    """Return what the report of a classified revision is given. header: where SQL does not hold it all."""
    row = series.classification
    if row is None:
        raise WorkerError(f"Series {series.series_uid} is not classified: there is nothing to report.")
    slices = list(
        session.scalars(
            select(SliceResult).where(SliceResult.classification_id == row.id).order_by(SliceResult.position)
        )
    )
    classified = [image for image in slices if image.classified]
    keys = sorted((image for image in slices if image.key_rank is not None), key=lambda image: image.key_rank or 0)
    header = header or stored_header(row)
    return ReportedExam(
        header=header,
        revision=series.revision,
        completeness=INCOMPLETE if is_incomplete(series) else series.completeness or "",
        instance_count=series.instance_count,
        expected_count=series.expected_count,
        instances=tuple(dict.fromkeys(ReportedInstance(image.sop_uid, image.sop_class_uid) for image in classified)),
        key_slices=tuple(_key_slice(image) for image in keys),
        verdict=row.verdict,
        certainty=row.certainty,
        reason_code=row.verdict_code,
        classes=tuple(_class_finding(known, row) for known in row.classes),
        slice_count=row.slice_count,
        slices_classified=row.slices_classified,
        algorithm=_algorithm(row, language),
        classified_at=in_zone(row.classified_at, header.timezone),
        predecessor=_predecessor(session, series),
        scope_rule=series.scope_rule,
        corrected=(),
        language=language,
        final=final,
    )


def doubts_of(exam: ReportedExam, preference: Preference) -> tuple[str, ...]:
    """Return what makes the series a poor one to judge a pattern by: thick slices, no kernel for lungs."""
    thickest = max((key.thickness or 0.0 for key in exam.key_slices), default=0.0)
    thick = (THICK_SLICES,) if thickest > _THICKEST_MM else ()
    header = exam.header
    standing = preference.standing(
        header.series_uid,
        kernel=header.kernel,
        description=header.series_description,
        thickness=None,
        slices=exam.slice_count,
    )
    if not standing.other_kernel:
        return thick
    return *thick, OTHER_KERNEL if header.kernel else UNKNOWN_KERNEL


def is_incomplete(series: Series) -> bool:
    """Whether fewer instances came than the PACS said it has."""
    return series.expected_count is not None and series.instance_count < series.expected_count


def stored_header(row: Classification) -> SeriesHeader:
    """Return what SQL keeps of the header."""
    return SeriesHeader(**{**row.header, "patient": Patient(**row.header["patient"])})


def in_zone(moment: datetime, stated: str) -> datetime:
    """Return a moment in the zone of the scanner where it states one, else of this machine: a report has one zone."""
    named = valid_zone(stated)
    if not named:
        return moment.astimezone()
    minutes = int(named[1:3]) * 60 + int(named[3:])
    return moment.astimezone(timezone(timedelta(minutes=minutes if named[0] == "+" else -minutes)))


def _slice_row(classification: int, index: int, image: ClassifiedSlice, names: Sequence[str]) -> dict[str, Any]:
    source = image.source
    probabilities = image.probabilities
    return {
        "classification_id": classification,
        "position": index,
        "sop_uid": source.sop_uid,
        "sop_class_uid": source.sop_class_uid,
        "frame": source.frame,
        "instance_number": source.instance_number,
        "position_mm": source.position_mm,
        "geometry": {
            "rows": source.rows,
            "columns": source.columns,
            "position": source.position,
            "orientation": source.orientation,
            "pixel_spacing": source.pixel_spacing,
            "thickness": source.thickness,
        },
        "lung_fraction": image.lung_fraction,
        "classified": probabilities is not None,
        "probabilities": None if probabilities is None else dict(zip(names, probabilities, strict=True)),
        "note": image.note,
        "key_rank": image.key_rank,
        "outlines": image.outlines,
        "activation": image.activation,
    }


def _key_slice(image: SliceResult) -> KeySlice:
    geometry = image.geometry
    return KeySlice(
        instance=ReportedInstance(image.sop_uid, image.sop_class_uid),
        frame=image.frame,
        instance_number=image.instance_number,
        probabilities=tuple((image.probabilities or {}).items()),
        outlines=tuple(tuple((float(x), float(y)) for x, y in outline) for outline in image.outlines or ()),
        rows=geometry["rows"],
        columns=geometry["columns"],
        position=tuple(geometry["position"]),
        orientation=tuple(geometry["orientation"]),
        pixel_spacing=tuple(geometry["pixel_spacing"]),
        thickness=geometry["thickness"],
    )


def _class_finding(known: dict[str, Any], row: Classification) -> ClassFinding:
    name, code = known["name"], known["code"]
    return ClassFinding(
        name=name,
        code_value=code["value"],
        code_scheme=code["scheme"],
        code_meaning=code["meaning"],
        probability=row.probabilities[name],
        slices_called=row.called[name],
    )


def _algorithm(row: Classification, language: Language) -> Algorithm:
    model = row.model
    parameters = (
        sentence("bundle", language, sha256=model.bundle_sha256),
        sentence("operating_point", language, point=json.dumps(row.operating_point, sort_keys=True)),
        sentence("network", language, architecture=model.architecture, arithmetic=row.precision),
        sentence("software", language, version=row.software),
        *notes_of(row, language),
    )
    return Algorithm(
        model.name, model.version, model.bundle_sha256, row.software, parameters, row.limits, row.despite or ""
    )


def notes_of(row: Classification, language: Language) -> list[str]:
    """Return what was left out of an exam; results of earlier versions have it as sentences in English."""
    return [note if isinstance(note, str) else note_sentence(Note(**note), language) for note in row.notes]


def _predecessor(session: Session, series: Series) -> Predecessor | None:
    """The report of the latest earlier revision that has one, in the SOP class in which a PACS took it.

    Of a series that speaks for its study instead of one that was reported before: the report of that one; of one whose
    study had no result before: the notice that said so.
    """
    delivered = exists().where(Delivery.sop_uid == Report.sop_uid, Delivery.state == DeliveryState.DELIVERED)
    found = session.execute(
        select(Report.sop_class_uid, Report.sop_uid, Series.series_uid)
        .join(Series, Series.id == Report.series_id)
        .where(
            or_(
                and_(
                    Series.series_uid == series.series_uid,
                    Series.study_id == series.study_id,
                    Series.revision < series.revision,
                    Series.withdrawn_at.is_(None),
                ),
                and_(
                    Series.id == series.instead_of_id,
                    Series.study_id == series.study_id,
                    Series.withdrawn_at.is_(None),
                ),
            ),
            Report.object == SR,
        )
        .order_by(
            Series.series_uid != series.series_uid, Series.revision.desc(), case((delivered, 0), else_=1), Report.id
        )
        .limit(1)
    ).first()
    if found is not None:
        return Predecessor(*found)
    notice = session.execute(
        select(Delivery.sop_class_uid, Delivery.sop_uid, Series.series_uid)
        .join(Series, Series.id == Delivery.series_id)
        .where(
            Series.study_id == series.study_id,
            Series.withdrawn_at.is_(None),
            Delivery.object == NOTICE,
            Delivery.sop_uid.is_not(None),
        )
        .order_by(Delivery.id)
        .limit(1)
    ).first()
    return None if notice is None else Predecessor(notice.sop_class_uid or "", notice.sop_uid or "", notice.series_uid)
