"""On which side of a split a patient stands: remembered in the bundle, from one training to the next."""

import hashlib
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from models.bundle import Bundle
from training.errors import TrainingError

# Who stood on several sides counts as learned from, then as chosen by.
_PRECEDENCE = ("training", "validation", "test")
# Of 20 patients that a model does not know, so many are held out for good, and so many choose the epoch.
_TEST_PARTS, _VALIDATION_PARTS, _PARTS = 4, 3, 20


@dataclass(frozen=True)
class Sides:
    """Patients as salted hashes, with their side.

    The hash (scrypt, RFC 7914) is slow on purpose: who holds a bundle and guesses patient numbers needs long. It hides
    nothing from one who asks about a single patient.
    """

    salt: str = field(default_factory=lambda: secrets.token_hex(16))
    known: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: Bundle) -> "Sides":
        """Return the sides that a bundle remembers. Raises TrainingError where it remembers none."""
        try:
            content: Mapping[str, Any] = bundle.description.data["patients_by_side"]
            return cls(content["salt"], {each: side for side in _PRECEDENCE for each in content[side]})
        except (KeyError, TypeError) as error:
            raise TrainingError(
                f"{bundle.folder} does not say which patients it has learned from: it cannot be retrained, for nobody "
                "would know whom to hold out."
            ) from error

    def including(self, sides: Mapping[str, Iterable[str]]) -> "Sides":
        """Return these sides with more patients; one who was learned from once stays so."""
        known = dict(self.known)
        for side in reversed(_PRECEDENCE):
            for patient in set(sides.get(side, ())):
                hashed = self.hashed(patient)
                known[hashed] = min(side, known.get(hashed, side), key=_PRECEDENCE.index)
        return Sides(self.salt, known)

    def released(self, patients: Iterable[str]) -> "Sides":
        """Return these sides with held-out patients who may be learned from now: others are asked in their place."""
        return Sides(self.salt, {**self.known, **{self.hashed(patient): "training" for patient in set(patients)}})

    def remembered_by(self, bundle: Bundle) -> Bundle:
        """Return a bundle as if it remembered these sides; its files, and its checksum, stay as they are."""
        description = bundle.description
        data = {**description.data, "patients_by_side": self.as_json()}
        return replace(bundle, description=replace(description, data=data))

    def side(self, patient: str) -> str:
        """Return `training`, `validation` or `test`: as before, or for a new patient by a hash of the name."""
        known = self.known.get(self.hashed(patient))
        if known is not None:
            return known
        place = int(hashlib.sha256(_encoded(patient)).hexdigest(), 16) % _PARTS
        if place < _TEST_PARTS:
            return "test"
        return "validation" if place < _TEST_PARTS + _VALIDATION_PARTS else "training"

    def trained(self, patient: str) -> bool:
        """Whether training has seen a patient."""
        return self.known.get(self.hashed(patient)) == "training"

    def learned_from(self, patients: Iterable[str]) -> int:
        """Return how many of these patients training or the choice of the epoch has seen."""
        return sum(self.known.get(self.hashed(patient)) in ("training", "validation") for patient in set(patients))

    def as_json(self) -> dict[str, Any]:
        """Return the sides as a bundle keeps them."""
        return {"salt": self.salt, **{side: sorted(each for each, its in self.known.items() if its == side)
                                      for side in _PRECEDENCE}}  # fmt: skip

    def hashed(self, patient: str) -> str:
        """Return a patient's hash."""
        return _slow_hash(patient, self.salt)


@cache
def _slow_hash(patient: str, salt: str) -> str:
    return hashlib.scrypt(_encoded(patient), salt=salt.encode(), n=2**13, r=8, p=1, dklen=8).hex()


def _encoded(patient: str) -> bytes:
    """One name, one sequence of bytes: whatever form its accents came in."""
    return unicodedata.normalize("NFC", patient).encode("utf-8", "backslashreplace")
