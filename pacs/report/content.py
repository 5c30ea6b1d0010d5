"""The content tree: TID 1500 with a TID 1411 group for the exam and TID 1410 groups for the other key slices.

Every group carries coordinates: a viewer that draws measurements shows none where one group has nothing to draw.
The outlines are those of the lungs, for a slice classifier does not locate anything.
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
from pacs.codes import ORGANISATION
from pacs.report import header as headers
from pacs.report.concepts import concept, private, translate
from pacs.report.exam import INCOMPLETE, KeySlice, ReportedExam

_SLICE_THICKNESS = ("112225", "DCM")
DISCLAIMER = {
    "en": "Decision support, not a diagnosis; not a medical device",
    "pt-BR": "Apoio à decisão, não é um diagnóstico; não é um dispositivo médico",
    "es": "Apoyo a la decisión, no es un diagnóstico; no es un dispositivo médico",
}
_CORRECTED = {
    "en": "Taken from the PACS, which differs from the images: {}",
    "pt-BR": "Conforme o PACS, que difere das imagens: {}",
    "es": "Según el PACS, que difiere de las imágenes: {}",
}
_EXAM = {"en": "Exam", "pt-BR": "Exame", "es": "Examen"}
_SLICE = {"en": "Slice", "pt-BR": "Corte", "es": "Corte"}


def hashed_uid(*parts: str) -> str:
    """Return a UID derived from a hash (PS3.5 B.2): the same parts, the same UID."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    # The version and variant bits of a UUID (RFC 9562, version 8).
    value = int.from_bytes(digest[:16], "big") & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62)
    return f"2.25.{value}"


def content_tree(exam: ReportedExam, charset: str, identity: str) -> Dataset:
    """Return the root of the tree. `identity` stands for this report in its tracking UIDs."""
    language = exam.language
    algorithm = _algorithm(exam)
    groups = [_exam_group(exam, identity, algorithm)]
    groups += [_slice_group(exam, key, identity, algorithm) for key in exam.key_slices[1:] if key.outlines]
    library = [headers.image(exam.header, key, charset) for key in exam.key_slices]
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(exam)),
        procedure_reported=concept("24627-2", "LN"),
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
            DISCLAIMER[exam.language],
            *([] if exam.scope_rule is None else [f"scope rule {exam.scope_rule}"]),
            *(
                [f"{exam.instance_count} of {exam.expected_count} instances came"]
                if exam.completeness == INCOMPLETE
                else []
            ),
            *([_CORRECTED[exam.language].format(", ".join(exam.corrected))] if exam.corrected else []),
            *exam.algorithm.parameters,
        ],
        manufacturer=ORGANISATION,
    )


def _exam_group(
    exam: ReportedExam, identity: str, algorithm: AlgorithmIdentification
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    language = exam.language
    measurements = [] if exam.certainty is None else [_percent(concept("111013", "DCM"), exam.certainty)]
    for known in exam.classes:
        name = private(f"PROB-{known.name}"[:16], language, f"Probability of {known.name}")
        measurements.append(_percent(name, known.probability))
    measurements.append(_slices(private("SLICES-RECEIVED", language, ""), exam.slice_count))
    measurements.append(_slices(private("SLICES", language, ""), exam.slices_classified))
    for known in exam.classes:
        name = private(f"SLICES-{known.name}"[:16], language, f"Slices called {known.name}")
        measurements.append(_slices(name, known.slices_called))
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(hashed_uid("tracking", identity, "exam"), _EXAM[language]),
        referenced_regions=[region for key in exam.key_slices for region in _regions(key)],
        finding_type=concept("233703007", "SCT"),
        finding_sites=[_lungs()],
        algorithm_id=algorithm,
        measurements=measurements,
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
        ],
    )


def _reason(exam: ReportedExam) -> list[QualitativeEvaluation]:
    """Why the exam is indeterminate."""
    if not exam.reason_code:
        return []
    language = exam.language
    return [
        QualitativeEvaluation(private("REASON", language, ""), private(exam.reason_code, language, exam.reason_code))
    ]


def _slice_group(
    exam: ReportedExam, key: KeySlice, identity: str, algorithm: AlgorithmIdentification
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    number = key.instance_number if key.instance_number is not None else key.instance.sop_uid.rsplit(".", 1)[-1]
    label = f"{_SLICE[exam.language]} {number}" + (f"/{key.frame}" if key.frame else "")
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            hashed_uid("tracking", identity, key.instance.sop_uid, str(key.frame)), label
        ),
        # A planar group holds one region: the larger lung.
        referenced_region=_regions(key)[0],
        finding_type=_class_code(exam, key.called),
        finding_sites=[_lungs()],
        algorithm_id=algorithm,
        measurements=[_percent(concept("111012", "DCM"), key.probability)],
    )


def _regions(key: KeySlice) -> list[ImageRegion]:
    """Closed polylines of the lungs, the larger first."""
    source = SourceImageForRegion(
        referenced_sop_class_uid=key.instance.sop_class_uid,
        referenced_sop_instance_uid=key.instance.sop_uid,
        referenced_frame_numbers=None if key.frame is None else [key.frame],
    )
    polygons = sorted((np.array(outline) for outline in key.outlines), key=polygon_area, reverse=True)
    return [ImageRegion(GraphicTypeValues.POLYLINE, np.vstack([polygon, polygon[:1]]), source) for polygon in polygons]


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


def _percent(name: CodedConcept, value: float) -> Measurement:
    return Measurement(name, round(value * 100, 2), concept("%", "UCUM"))


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
