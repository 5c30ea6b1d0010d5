"""The content tree: TID 1500 with a TID 1411 group for the exam and TID 1410 groups for the other key slices.

An abstention has the exam's group alone, and in it no class, no finding and no probability: readers file what a group
has as its finding. Viewers draw the first five numbers of a group by name and nothing else, so its first two are named
after what nobody may overlook. Every group carries coordinates: a viewer that draws measurements shows none where one
group has nothing to draw. The outlines are those of the lungs, for a slice classifier does not locate anything.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForRegion,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs import codes
from pacs.codes import ORGANISATION, Language, reason_value
from pacs.report import header as headers
from pacs.report.concepts import concept, private, translate
from pacs.report.exam import INCOMPLETE, KeySlice, ReportedExam
from pacs.report.percentages import percentage
from pacs.report.wording import limits_sentence, sentence

_SLICE_THICKNESS = ("112225", "DCM")
# The patterns of interstitial lung disease among the classes: normal lungs and other diseases are none.
_PATTERNS = ("UIP", "NSIP")
_MOST_OF_THE_WIDTH = 0.6


def hashed_uid(*parts: str) -> str:
    """Return a UID derived from a hash (PS3.5 B.2): the same parts, the same UID."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    # The version and variant bits of a UUID (RFC 9562, version 8).
    value = int.from_bytes(digest[:16], "big") & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62)
    return f"2.25.{value}"


def content_tree(exam: ReportedExam, charset: str) -> Dataset:
    """Return the root of the tree."""
    language = exam.language
    algorithm = _algorithm(exam)
    groups = [_exam_group(exam, algorithm)]
    if exam.committed:
        groups += [_slice_group(exam, key, algorithm) for key in exam.key_slices[1:] if key.outlines]
    library = [headers.image(exam.header, key, charset) for key in exam.key_slices]
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(exam)),
        # One of context group 100, as validators ask, which has no CT of the chest: the finding sites name the lungs.
        procedure_reported=concept("25045-6", "LN"),
        imaging_measurements=groups,
        title=concept("126000", "DCM"),
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(concept(language, "RFC5646")),
        referenced_images=library,
    )
    root: Dataset = report[0]
    if any(key.thickness is None for key in exam.key_slices):
        _drop_unknown_thickness(root)
    translate(root, language)
    return root


def device_uid(exam: ReportedExam) -> str:
    """Return the UID of the device observer: a new one for each model and software."""
    return hashed_uid("device", exam.algorithm.sha256, exam.algorithm.software)


def cautions(exam: ReportedExam) -> tuple[str, ...]:
    """Return what everybody has to know who is shown a result of this model: why it serves at all, and its limits."""
    despite, limits = exam.algorithm.despite, exam.algorithm.limits
    return (
        *([sentence("despite", exam.language, why=despite)] if despite else []),
        *([sentence("limits", exam.language, limits=limits_sentence(limits, exam.language))] if limits else []),
    )


def _observer(exam: ReportedExam) -> ObserverContext:
    return ObserverContext(
        observer_type=concept("121007", "DCM"),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=device_uid(exam),
            name="Reticula",
            manufacturer_name=ORGANISATION,
            model_name=f"{exam.algorithm.name} {exam.algorithm.version}"[:64],
            serial_number=exam.algorithm.sha256[:16],
        ),
    )


def _algorithm(exam: ReportedExam) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=exam.algorithm.name,
        version=exam.algorithm.version,
        parameters=[
            sentence("disclaimer", exam.language),
            *cautions(exam),
            *([] if exam.scope_rule is None else [sentence("scope_rule", exam.language, rule=exam.scope_rule)]),
            *(
                [sentence("instances_came", exam.language, count=exam.instance_count, expected=exam.expected_count)]
                if exam.completeness == INCOMPLETE
                else []
            ),
            *([sentence("corrected", exam.language, fields=", ".join(exam.corrected))] if exam.corrected else []),
            *exam.algorithm.parameters,
        ],
        manufacturer=ORGANISATION,
    )


def _exam_group(
    exam: ReportedExam, algorithm: AlgorithmIdentification
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    language = exam.language
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(_tracking_uid(exam, "exam"), sentence("exam", language)),
        referenced_regions=[
            region for key in sorted(exam.key_slices, key=_fills_the_width) for region in _regions(key)
        ],
        finding_type=_finding(exam),
        finding_sites=[_lungs()],
        algorithm_id=algorithm,
        measurements=_measurements(exam),
        qualitative_evaluations=[
            QualitativeEvaluation(concept("111023", "DCM"), _class_code(exam, exam.verdict)),
            *_reason(exam),
            QualitativeEvaluation(
                private("SCOPE", language, ""),
                private("not_confirmed" if exam.scope_rule is None else "by_rule", language, ""),
            ),
            QualitativeEvaluation(
                private("COMPLETENESS", language, ""), private(exam.completeness, language, exam.completeness)
            ),
            *(
                QualitativeEvaluation(private("DOUBT", language, ""), private(doubt, language, doubt))
                for doubt in exam.doubts
            ),
        ],
    )


def _measurements(exam: ReportedExam) -> list[Measurement]:
    """The numbers of the exam, in the order in which viewers draw the first of them."""
    language = exam.language
    coverage = [
        _slices(private("SLICES-RECEIVED", language, ""), exam.slice_count),
        _slices(private("SLICES", language, ""), exam.slices_classified),
    ]
    probabilities = [_percent(_probability_of(known.name, language), known.probability) for known in exam.classes]
    if not exam.committed:
        silence = [
            _slices(private(code, language, code), exam.slices_classified)
            for code in ("NO-VERDICT", reason_value(exam.reason_code))
            if code
        ]
        return silence + coverage + (probabilities if exam.research else [])
    certainty = [] if exam.certainty is None else [_percent(concept("111013", "DCM"), exam.certainty)]
    called = [
        _slices(private(f"SLICES-{known.name}"[:16], language, f"Slices called {known.name}"), known.slices_called)
        for known in exam.classes
    ]
    return probabilities + certainty + coverage + called


def _finding(exam: ReportedExam) -> CodedConcept | None:
    """What the exam shows: the disease where the verdict is one of its patterns, nothing where there is no verdict."""
    if not exam.committed:
        return None
    return concept("233703007", "SCT") if exam.verdict in _PATTERNS else _class_code(exam, exam.verdict)


def _tracking_uid(exam: ReportedExam, *what: str) -> str:
    """The same for all reports of one CT series, so that a viewer follows exam and slices from one to the next."""
    return hashed_uid("tracking", exam.header.study_uid, exam.header.series_uid, *what)


def _reason(exam: ReportedExam) -> list[QualitativeEvaluation]:
    """Why the exam is indeterminate."""
    if not exam.reason_code:
        return []
    language = exam.language
    return [
        QualitativeEvaluation(
            private("REASON", language, ""), private(reason_value(exam.reason_code), language, exam.reason_code)
        )
    ]


def _slice_group(
    exam: ReportedExam, key: KeySlice, algorithm: AlgorithmIdentification
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    number = key.instance_number if key.instance_number is not None else key.instance.sop_uid.rsplit(".", 1)[-1]
    label = f"{sentence('slice', exam.language)} {number}" + (f"/{key.frame}" if key.frame else "")
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(_tracking_uid(exam, key.instance.sop_uid, str(key.frame)), label),
        # A planar group holds one region.
        referenced_region=_regions(key)[0],
        # A slice that is called otherwise than the exam is no finding: its numbers say it.
        finding_type=_class_code(exam, exam.verdict) if key.called == exam.verdict else None,
        finding_sites=[_lungs()],
        algorithm_id=algorithm,
        measurements=[_percent(_probability_of(name, exam.language), value) for name, value in key.probabilities],
    )


def _regions(key: KeySlice) -> list[ImageRegion]:
    """Closed polylines of the lungs, the one that lies leftmost first: viewers write to its right, over the image."""
    source = SourceImageForRegion(
        referenced_sop_class_uid=key.instance.sop_class_uid,
        referenced_sop_instance_uid=key.instance.sop_uid,
        referenced_frame_numbers=None if key.frame is None else [key.frame],
    )
    polygons = sorted((np.array(outline) for outline in key.outlines), key=polygon_area, reverse=True)
    half = polygon_area(polygons[0]) / 2
    lungs = [polygon for polygon in polygons if polygon_area(polygon) >= half]
    polygons = [*sorted(lungs, key=lambda polygon: float(polygon[:, 0].min())), *polygons[len(lungs) :]]
    return [ImageRegion(GraphicTypeValues.POLYLINE, np.vstack([polygon, polygon[:1]]), source) for polygon in polygons]


def _fills_the_width(key: KeySlice) -> bool:
    """Whether the first region spans the image, as where both lungs touch: beside it there is no room for numbers."""
    first = _regions(key)[0].value
    return bool(first[:, 0].max() > _MOST_OF_THE_WIDTH * key.columns)


def polygon_area(polygon: NDArray[np.float64]) -> float:
    """Return the area that a closed polygon (N, 2) encloses, in the square of its unit."""
    x, y = polygon[:, 0], polygon[:, 1]
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _lungs() -> FindingSite:
    return FindingSite(concept("39607008", "SCT"), laterality=concept("51440002", "SCT"))


def _class_code(exam: ReportedExam, name: str) -> CodedConcept:
    for known in exam.classes:
        if known.name == name:
            return CodedConcept(known.code_value, known.code_scheme, known.code_meaning)
    return concept(codes.INDETERMINATE_CODE, "SCT")


def _probability_of(name: str, language: Language) -> CodedConcept:
    return private(f"PROB-{name}"[:16], language, f"Probability of {name}")


def _percent(name: CodedConcept, value: float) -> Measurement:
    return Measurement(name, percentage(value, 2), concept("%", "UCUM"))


def _slices(name: CodedConcept, count: int) -> Measurement:
    return Measurement(name, count, concept("{slices}", "UCUM"))


def _items(node: Dataset) -> Iterable[Dataset]:
    yield node
    for child in node.get("ContentSequence", ()):
        yield from _items(child)


def _drop_unknown_thickness(root: Dataset) -> None:
    """Highdicom asks for a thickness of every image; what no header states must not stand in the report."""
    for node in _items(root):
        children = node.get("ContentSequence")
        if not children:
            continue
        for index in reversed(range(len(children))):
            name = children[index].get("ConceptNameCodeSequence")
            if name and (name[0].CodeValue, name[0].CodingSchemeDesignator) == _SLICE_THICKNESS:
                value = children[index].MeasuredValueSequence[0].NumericValue
                if float(value) == 0:
                    del children[index]
