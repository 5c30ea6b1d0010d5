"""What a report is given. Everything that changes its bytes stands here, and nothing else is read."""

from dataclasses import dataclass
from datetime import datetime

from pacs.codes import Language
from pacs.series import SeriesHeader

INCOMPLETE = "incomplete"
# What makes an exam a poor one to judge a pattern by (PS3.16 has no codes for it).
THICK_SLICES, OTHER_KERNEL, UNKNOWN_KERNEL = "thick_slices", "other_kernel", "unknown_kernel"


@dataclass(frozen=True)
class ClassFinding:
    """A class of the model: its code, the exam's probability (0 to 1) and the slices called so."""

    name: str
    code_value: str
    code_scheme: str
    code_meaning: str
    probability: float
    slices_called: int


@dataclass(frozen=True)
class ReportedInstance:
    """A classified instance, or a frame of one."""

    sop_uid: str
    sop_class_uid: str


@dataclass(frozen=True)
class KeySlice:
    """A slice that is shown. probabilities: (class, probability from 0 to 1), at least one class.

    outlines: the lungs as closed polygons of (column, row) in pixels. Geometry as in `pacs.series.SourceSlice`.
    """

    instance: ReportedInstance
    frame: int | None
    instance_number: int | None
    probabilities: tuple[tuple[str, float], ...]
    outlines: tuple[tuple[tuple[float, float], ...], ...]
    rows: int
    columns: int
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    pixel_spacing: tuple[float, float]
    thickness: float | None

    @property
    def called(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda known: known[1])[0]

    @property
    def probability(self) -> float:
        """The probability of that class, 0 to 1."""
        return max(probability for _name, probability in self.probabilities)


@dataclass(frozen=True)
class Algorithm:
    """What classified: model, bundle checksum, the software around it, and what it was set to.

    limits: what the model's card warns of. despite: why it serves although it failed what every model is asked; empty
    where it did not.
    """

    name: str
    version: str
    sha256: str
    software: str
    parameters: tuple[str, ...]
    limits: str = ""
    despite: str = ""


@dataclass(frozen=True)
class Predecessor:
    """The report that this one replaces. series_uid: of the CT that it is about."""

    sop_class_uid: str
    sop_uid: str
    series_uid: str


@dataclass(frozen=True)
class ReportedExam:
    """One classification of one revision of a series.

    verdict: name of a class, or `indeterminate`; then reason_code says why (`models.verdict.ReasonCode`).
    certainty: probability of the verdict's class, 0 to 1; None where there is no verdict.
    scope_rule: the rule that chose the exam; None: nobody said that the patient has systemic sclerosis.
    corrected: attributes that were taken from the PACS, which has other values than the images.
    completeness: the criterion that closed the series, or `incomplete` where the PACS had more (expected_count) than
    came (instance_count). classified_at carries the zone that the report states.
    doubts: what makes the series a poor one to judge a pattern by, codes of `pacs.meanings`.
    research: whether probabilities stand in the report of an abstention too.
    """

    header: SeriesHeader
    revision: int
    completeness: str
    instance_count: int
    expected_count: int | None
    instances: tuple[ReportedInstance, ...]
    key_slices: tuple[KeySlice, ...]
    verdict: str
    certainty: float | None
    reason_code: str
    classes: tuple[ClassFinding, ...]
    slice_count: int
    slices_classified: int
    algorithm: Algorithm
    classified_at: datetime
    predecessor: Predecessor | None
    scope_rule: str | None
    corrected: tuple[str, ...]
    language: Language
    final: bool
    doubts: tuple[str, ...] = ()
    research: bool = False

    @property
    def committed(self) -> bool:
        """Whether the verdict is a class of the model; otherwise nothing may be said of classes."""
        return any(known.name == self.verdict for known in self.classes)
