"""What an archive is asked for, and what it answers (PS3.4 C.6.2.1: Study Root)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacs.elements import integer, text
from pacs.errors import PartlyRead, QueryError

if TYPE_CHECKING:
    from pacs.retrieval.receiver import Receiver

LONGEST_REPORT = 32 << 20  # bytes

# What a query returns of a study and of a series.
STUDY_KEYS = (
    "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyDate", "StudyDescription", "ModalitiesInStudy",
)  # fmt: skip
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")


@dataclass(frozen=True)
class StudyQuery:
    """Which studies; empty means any. dates: a day or a range, as in DICOM: 20240101-20241231. * and ? are wild."""

    study_uid: str = ""
    dates: str = ""
    modality: str = ""
    description: str = ""
    patient_id: str = ""
    accession_number: str = ""

    def filters(self) -> dict[str, str]:
        """Return the matching keys that are not empty."""
        keys = {
            "StudyInstanceUID": self.study_uid,
            "StudyDate": self.dates,
            "ModalitiesInStudy": self.modality,
            "StudyDescription": self.description,
            "PatientID": self.patient_id,
            "AccessionNumber": self.accession_number,
        }
        return {keyword: value for keyword, value in keys.items() if value}


@dataclass(frozen=True)
class FoundStudy:
    """A study as the archive has it."""

    study_uid: str
    patient_id: str
    issuer: str
    patient_name: str
    birth_date: str
    sex: str
    accession_number: str
    study_date: str
    description: str
    modalities: tuple[str, ...]


@dataclass(frozen=True)
class FoundSeries:
    """A series as the archive has it; `instances` is None where it does not say."""

    study_uid: str
    series_uid: str
    modality: str
    description: str
    instances: int | None


class Source(Protocol):
    """An archive that can be asked. Everything raises QueryError."""

    name: str

    def studies(self, query: StudyQuery) -> list[FoundStudy]:
        """Return the studies that match."""
        ...

    def series(self, study_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        ...

    def fetch(self, series: FoundSeries, receiver: "Receiver") -> None:
        """Have the instances of a series handed over."""
        ...

    def read(self, series: FoundSeries) -> list[Dataset]:
        """Return the structured reports and key objects of a series, all of them.

        Raises PartlyRead with those that could be read.
        """
        ...

    def check(self) -> None:
        """See that it answers."""
        ...


def read_study(answer: Dataset) -> FoundStudy:
    """Read a study out of an answer."""
    modalities = answer.get("ModalitiesInStudy") or ()
    return FoundStudy(
        study_uid=text(answer, "StudyInstanceUID"),
        patient_id=text(answer, "PatientID"),
        issuer=text(answer, "IssuerOfPatientID"),
        patient_name=text(answer, "PatientName"),
        birth_date=text(answer, "PatientBirthDate"),
        sex=text(answer, "PatientSex"),
        accession_number=text(answer, "AccessionNumber"),
        study_date=text(answer, "StudyDate"),
        description=text(answer, "StudyDescription"),
        modalities=tuple(map(str, modalities)) if isinstance(modalities, (MultiValue, list)) else (str(modalities),),
    )


def read_found_series(answer: Dataset, study_uid: str) -> FoundSeries:
    """Read a series out of an answer."""
    return FoundSeries(
        study_uid=study_uid,
        series_uid=text(answer, "SeriesInstanceUID"),
        modality=text(answer, "Modality"),
        description=text(answer, "SeriesDescription"),
        instances=integer(answer, "NumberOfSeriesRelatedInstances"),
    )


def with_uid(found: Iterator[FoundStudy]) -> list[FoundStudy]:
    """Return the studies that name one, each once."""
    return list({study.study_uid: study for study in found if study.study_uid}.values())


def read_all(contents: Iterable[bytes | None], series: FoundSeries) -> list[Dataset]:
    """Return objects in the DICOM File Format as datasets; None stands for one that is too long to be ours.

    Raises PartlyRead where one cannot be read, or where fewer came than the archive says that it has.
    """
    datasets: list[Dataset] = []
    unreadable = long = 0
    try:
        for content in contents:
            if content is None:
                long += 1
                continue
            try:
                datasets.append(dcmread(BytesIO(content)))
            except Exception:  # pydicom raises exceptions of any kind on garbage; the others are read all the same
                unreadable += 1
    except QueryError as error:
        raise PartlyRead(str(error), datasets) from error
    if unreadable:
        raise PartlyRead(f"{unreadable} objects cannot be read.", datasets)
    if series.instances is not None and len(datasets) + long < series.instances:
        raise PartlyRead(f"{len(datasets) + long} of {series.instances} objects came.", datasets)
    return datasets
