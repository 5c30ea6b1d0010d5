"""Whose exam it is, asked again of the PACS before its report is made: it may have been merged or corrected since."""

from dataclasses import replace
from typing import Literal

from pacs.errors import QueryError, Retry
from pacs.report.header import cleaned
from pacs.retrieval import FoundStudy, Source, StudyQuery
from pacs.series import Patient, SeriesHeader


class HeldError(Retry):
    """The PACS names the exam otherwise than its images do, and by setting nothing goes out."""


class AskAgainError(Retry):
    """The PACS could not be asked."""


class IdentityCheck:
    """Asks `source`. changed: whether the PACS's word is taken, or the exam held."""

    def __init__(self, source: Source, changed: Literal["take", "hold"]) -> None:
        self._source, self._changed = source, changed

    def apply(self, header: SeriesHeader) -> tuple[SeriesHeader, tuple[str, ...]]:
        """Return the header with what the PACS has of patient and accession number, and the names of what differs.

        A study that the PACS does not know keeps what its images say. Raises AskAgainError, HeldError.
        """
        corrected = self._corrected(header)
        changed = _differences(header, corrected)
        if self._changed == "hold" and changed:
            raise HeldError(
                f"The PACS has another {' and '.join(changed)} than the images: settle it there, or set "
                "delivery.identity_changed to take."
            )
        return corrected, changed

    def changes(self, header: SeriesHeader) -> tuple[str, ...]:
        """Return the names of what the PACS has otherwise. Raises AskAgainError."""
        return _differences(header, self._corrected(header))

    def _corrected(self, header: SeriesHeader) -> SeriesHeader:
        try:
            found = [
                each
                for each in self._source.studies(StudyQuery(study_uid=header.study_uid))
                if each.study_uid == header.study_uid
            ]
        except QueryError as error:
            raise AskAgainError(f"Whose exam it is cannot be asked: {error}") from error
        return _corrected(header, found[0]) if found else header


def _corrected(header: SeriesHeader, study: FoundStudy) -> SeriesHeader:
    """Return the header with what the PACS says; what it leaves empty stays, unless the patient is another one."""
    patient = header.patient
    other_issuer = bool(study.issuer and patient.issuer) and study.issuer != patient.issuer
    if study.patient_id and (study.patient_id != patient.patient_id or other_issuer):
        # Nothing of the former patient may stay beside the new number.
        return replace(
            header,
            patient=Patient(study.patient_id, study.issuer, study.patient_name, study.birth_date, study.sex),
            accession_number=study.accession_number,
            referring_physician="",
            context="{}",
        )
    patient = replace(
        patient,
        name=study.patient_name or patient.name,
        birth_date=study.birth_date or patient.birth_date,
        sex=study.sex or patient.sex,
    )
    return replace(header, patient=patient, accession_number=study.accession_number or header.accession_number)


def _differences(header: SeriesHeader, corrected: SeriesHeader) -> tuple[str, ...]:
    """Name what differs, as DICOM names it."""
    # As a report states them: what it cannot state is no difference.
    header, corrected = cleaned(header), cleaned(corrected)
    before, after = header.patient, corrected.patient
    pairs = {
        "PatientID": (before.patient_id, after.patient_id),
        "IssuerOfPatientID": (before.issuer, after.issuer),
        "PatientName": (_plain(before.name), _plain(after.name)),
        "PatientBirthDate": (before.birth_date, after.birth_date),
        "PatientSex": (before.sex, after.sex),
        "AccessionNumber": (header.accession_number, corrected.accession_number),
    }
    return tuple(name for name, (was, is_now) in pairs.items() if was != is_now)


def _plain(name: str) -> str:
    """Return a name without what only padding and capitals make different."""
    return name.rstrip("^= ").strip().casefold()
