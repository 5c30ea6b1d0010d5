"""What a figure is worth, in sentences: who stands behind it, and what it cannot say."""

from collections.abc import Mapping
from typing import Any

from training.protocols import FEW_PATIENTS

LEAKED = "patients stand on both sides of this split, so it says nothing of a patient that the model has not seen"


def behind(patients: Mapping[str, int]) -> str:
    """Return how many patients stand behind a figure, by class: `2 patients (1 UIP, 1 NSIP)`."""
    if not patients:
        return "unknown"
    total = sum(patients.values())
    return f"{total} patient{'' if total == 1 else 's'} ({', '.join(f'{n} {name}' for name, n in patients.items())})"


def worth(figures: Mapping[str, Any], *, leaked: bool) -> str:
    """Return a sentence on figures of slices as they stand in `bundle.json`; leaked: split by slice.

    Empty where there is nothing to warn of.
    """
    patients: Mapping[str, int] = figures.get("patients", {})
    said = [LEAKED] if leaked else []
    alone = [name for name, count in patients.items() if count == 1]
    if alone:
        said.append(f"one patient alone stands for {' and for '.join(alone)}, which says nothing of any other")
    elif patients and min(patients.values()) < FEW_PATIENTS:
        said.append(f"{min(patients.values())} patients of a class say little of others")
    sentence = "; ".join(said)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""
