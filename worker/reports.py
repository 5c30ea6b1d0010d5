"""What is sent: made once from what SQL holds and the key slices, stored as files that never change."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pacs.codes import Language
from pacs.durable import write_whole
from pacs.elements import text
from pacs.errors import Rejected, Retry
from pacs.facts import read_facts
from pacs.head import read_head
from pacs.report import Document, ReportedExam, ReportedInstance, build_report
from pacs.report.notice import UnreportedExam, build_notice
from pacs.report.rejection import Grounds, SentObject, build_rejection_note
from pacs.series import SeriesHeader, read_header, read_series
from pacs.spool import VERSION_MARK
from worker.database import Database, now
from worker.exams import instance_paths
from worker.identity import IdentityCheck
from worker.objects import HEAT_MAP, SUMMARY, Drawn, series_uid_of
from worker.privacy import Identities
from worker.results import doubts_of, in_zone, reported_exam, stored_header
from worker.rules import Preference, Rules
from worker.states import State
from worker.tables import NOTICE, RETRACTION, SR, Classification, Delivery, Report, Retraction, Series, SliceResult
from worker.version import __version__

if TYPE_CHECKING:
    from worker.summary import Material


# What the operating points of results have since verdicts need a guard.
_GUARDED = "min_share"
# So long after it was made an object is sent without asking again whose exam it is.
_SURE_FOR = timedelta(minutes=10)
_Drawn = tuple[str, str, int, datetime]


class NotAtHandError(Retry):
    """The stored report cannot be written or read now: a matter of this machine, not of the destination."""


class ReportStore:
    """The reports of all revisions, under `data_dir`."""

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        *,
        language: Language,
        final: bool,
        identities: Identities,
        identity_check: IdentityCheck | None = None,
        rules: Rules | None = None,
        preference: Preference | None = None,
        research: bool = False,
    ) -> None:
        self._preference, self._research = preference, research
        self._identity_check, self._rules = identity_check, rules
        self._database = database
        self._data_dir = data_dir
        self._language: Language = language
        self._final, self._identities = final, identities
        # What was drawn last: the objects of one exam are made one after the other.
        self._drawn: tuple[_Drawn, Material] | None = None

    def document(self, series_id: int, sop_class_uid: str, name: str = SR) -> Document:
        """Return an object of a revision in a SOP class as it is stored; the first time it is made.

        Raises NotAtHandError where the disk is full or the stored file is not to be read, HeldError and AskAgainError
        where it is not settled whose exam it is, Rejected where none can be made.
        """
        with self._database.read() as session:
            if name not in (NOTICE, RETRACTION):
                _need_guarded(session.get_one(Series, series_id).classification)
            row = _report_row(session, series_id, sop_class_uid, name)
            if row is not None:
                document = self._read(row)
                self._ask_again(row, document)
                return document
            series = session.get_one(Series, series_id)
            made = self._make(session, series, sop_class_uid, name)
            path = Path("reports") / series.series_uid / f"{made.sop_uid}.dcm"
        try:
            target = self._data_dir / path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, made.content)
        except OSError as error:
            raise NotAtHandError(f"The report cannot be written to {path}: {error.strerror}.") from error
        try:
            with self._database.write() as session:
                session.add(
                    Report(
                        series_id=series_id,
                        object=name,
                        sop_class_uid=sop_class_uid,
                        sop_uid=made.sop_uid,
                        path=str(path),
                        sha256=hashlib.sha256(made.content).hexdigest(),
                        created_at=now(),
                    )
                )
        except IntegrityError as error:
            with self._database.read() as session:
                if session.get(Series, series_id) is None:
                    (self._data_dir / path).unlink(missing_ok=True)
                    raise NotAtHandError("The exam was erased while its report was made.") from error
            # Another worker was first, and the first stored result wins.
            return self.document(series_id, sop_class_uid, name)
        return made

    def _make(self, session: Session, series: Series, sop_class_uid: str, name: str) -> Document:
        if name == SR:
            return build_report(self._exam(session, series), sop_class_uid)
        if name == NOTICE:
            return build_notice(self._unreported(session, series), sop_class_uid)
        if name == RETRACTION:
            return self._rejection_note(session, series)
        return _built(name, self._material(session, series))

    def _ask_again(self, row: Report, document: Document) -> None:
        """See whether what was made a while ago still names whom the PACS names. Raises Rejected, AskAgainError."""
        # A note names the patient of what it takes back.
        if self._identity_check is None or row.object == RETRACTION or now() - row.created_at < _SURE_FOR:
            return
        header = read_header(dcmread(BytesIO(document.content), stop_before_pixels=True))
        changed = self._identity_check.changes(header)
        if changed:
            raise Rejected(
                "identity_changed",
                f"Since it was made the PACS has another {' and '.join(changed)}: 'reticula exams reprocess' it.",
            )

    def _header(self, session: Session, series: Series) -> SeriesHeader | None:
        """Read the header that SQL does not hold from the received files; None where SQL holds it."""
        if series.classification is None or not self._identities.are_hashed:
            return None
        paths = instance_paths(session, series, self._data_dir)
        if not all(path.is_file() for path in paths):
            raise NotAtHandError("The received files are gone, and SQL holds no patient: send the series again.")
        header = read_series(paths).header
        if self._identities.patient(header.patient) != stored_header(series.classification).patient:
            raise NotAtHandError("The received files name another patient than SQL, or the key is another one.")
        return header

    def drawn(self, series_id: int) -> Drawn:
        """Return what there is to draw of a classified revision."""
        with self._database.read() as session:
            series = session.get_one(Series, series_id)
            keys = select(func.count()).select_from(SliceResult).join(Classification)
            named = {known["name"] for known in series.classification.classes} if series.classification else set()
            evident = series.classification is not None and series.classification.verdict in named
            before = set(
                session.scalars(
                    select(Report.object)
                    .join(Series, Series.id == Report.series_id)
                    .where(
                        Series.series_uid == series.series_uid,
                        Series.study_id == series.study_id,
                        Series.revision < series.revision,
                        Series.withdrawn_at.is_(None),
                    )
                )
            )
            of_this = keys.where(Classification.series_id == series_id, SliceResult.key_rank.is_not(None))
            return Drawn(
                maps=(session.scalar(of_this) or 0) if evident else 0,
                pages_before=SUMMARY in before,
                maps_before=any(name.startswith(HEAT_MAP) for name in before),
            )

    def _exam(self, session: Session, series: Series) -> ReportedExam:
        header = self._header(session, series)
        exam = reported_exam(session, series, language=self._language, final=self._final, header=header)
        doubts = () if self._preference is None else doubts_of(exam, self._preference)
        exam = replace(exam, doubts=doubts, research=self._research)
        if self._identity_check is None:
            return exam
        corrected, changed = self._identity_check.apply(exam.header)
        return replace(exam, header=corrected, corrected=changed)

    def _unreported(self, session: Session, series: Series) -> UnreportedExam:
        """What a notice is given: the header from received files, for SQL holds none of what was never classified."""
        paths = [path for path in instance_paths(session, series, self._data_dir) if path.is_file()]
        found = read_series(paths)
        if self._rules is not None:  # what died before anybody asked them may be none of ours
            self._rules.require(read_facts(read_head(paths[0]), len(paths)))
        header = found.header
        if self._identity_check is not None:
            header, _changed = self._identity_check.apply(header)
        return UnreportedExam(
            header=header,
            instances=tuple(dict.fromkeys(ReportedInstance(each.sop_uid, each.sop_class_uid) for each in found.slices)),
            revision=series.revision,
            failed=series.state == State.FAILED,
            reason_code=series.reason_code or "",
            ended_at=in_zone(series.ended_at or now(), header.timezone),
            software=__version__,
            language=self._language,
            final=self._final,
        )

    def _rejection_note(self, session: Session, series: Series) -> Document:
        """Name everything that was, or may have been, sent of the revisions that were taken back together."""
        retraction = session.scalars(select(Retraction).where(Retraction.series_id == series.id)).one()
        sent = exists().where(
            Delivery.series_id == Report.series_id, Delivery.object == Report.object, Delivery.attempted
        )
        rows = list(
            session.scalars(
                select(Report)
                .join(Series, Series.id == Report.series_id)
                .where(
                    Series.series_uid == series.series_uid,
                    Series.study_id == series.study_id,
                    Series.withdrawn_at == series.withdrawn_at,
                    Report.object != RETRACTION,
                    sent,
                )
                .order_by(Report.id)
            )
        )
        like = self._like(rows)
        study_uid = series.study.study_uid
        objects = [
            SentObject(series_uid_of(row.object, study_uid, series.series_uid), row.sop_class_uid, row.sop_uid)
            for row in rows
        ]
        moment = in_zone(retraction.requested_at, text(like, "TimezoneOffsetFromUTC"))
        grounds = Grounds(retraction.grounds)
        return build_rejection_note(like, objects, grounds, moment, __version__, self._language, retraction.id)

    def _like(self, rows: Sequence[Report]) -> Dataset:
        """Return what was sent, for the patient and study that it names. Raises NotAtHandError, Rejected."""
        missing: NotAtHandError | None = None
        for row in rows:
            try:
                return dcmread(BytesIO(self._read(row).content))
            except NotAtHandError as error:
                missing = error
        raise missing or Rejected("not_reportable", "Nothing of the result was ever made.")

    def _material(self, session: Session, series: Series) -> "Material":
        from worker.summary import gather

        if series.classification is None:
            raise Rejected("not_reportable", "The series is not classified.")
        # Not by the id of the row: that of an erased exam may be given again.
        which = series.study.study_uid, series.series_uid, series.revision, series.classification.classified_at
        if self._drawn is not None and self._drawn[0] == which:
            return self._drawn[1]
        # A file that holds the last content of a UID is named after the content, too.
        paths = instance_paths(session, series, self._data_dir)
        files = {path.stem.partition(VERSION_MARK)[0]: path for path in paths}
        try:
            material = gather(session, series.classification, self._exam(session, series), files)
        except OSError as error:
            raise NotAtHandError(
                f"A received file cannot be read, so nothing can be drawn: {error.strerror}; send the series again."
            ) from error
        self._drawn = which, material
        return material

    def _read(self, row: Report) -> Document:
        path = self._data_dir / row.path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise NotAtHandError(f"The stored report {row.path} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(content).hexdigest() != row.sha256:
            raise NotAtHandError(f"The stored report {row.path} was altered; restore it from a backup.")
        return Document(row.sop_class_uid, row.sop_uid, content)


def _need_guarded(row: Classification | None) -> None:
    """Nothing is sent of a result from before there were guards. Raises Rejected.

    Its report may name a class where it abstains, and its verdict a patient whom the model does not know.
    """
    if row is not None and _GUARDED not in row.operating_point:
        raise Rejected(
            "not_reportable",
            "It was classified by an earlier version, which said more than it knew: 'reticula exams reprocess' it.",
        )


def _built(name: str, material: "Material") -> Document:
    from worker.summary import build_object

    return build_object(name, material)


def _report_row(session: Session, series_id: int, sop_class_uid: str, name: str) -> Report | None:
    return session.scalar(
        select(Report).where(
            Report.series_id == series_id, Report.object == name, Report.sop_class_uid == sop_class_uid
        )
    )
