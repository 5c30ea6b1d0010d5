"""Synthetic chest CT with a known disease: what the demo shows and the demo model learns from.

The way of a phantom reads: `anatomy` (a patient) → `disease` or `others` (what is wrong with the lungs) →
`scanner` (how it was scanned) → `slices` (Hounsfield units and truth) → `files` (DICOM and truth.json).
Patient, disease and scanner are drawn from separate random streams, so that nothing but the disease tells
a UIP-like from an NSIP-like exam.
"""

from training.phantom.disease import DISEASES
from training.phantom.files import PhantomExam, write_phantoms
from training.phantom.mark import is_phantom
from training.phantom.slices import CONDITIONS

__all__ = ["CONDITIONS", "DISEASES", "PhantomExam", "is_phantom", "write_phantoms"]
