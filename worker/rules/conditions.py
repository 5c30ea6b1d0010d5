"""One rule: all its conditions must hold, each by one of its alternatives."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pacs.facts import SeriesFacts
from worker.errors import SettingsError


@dataclass(frozen=True)
class Rule:
    """What `does` means: `scope` takes an exam, `exclude` leaves it, `urgent` puts it ahead. An empty condition holds.

    Patterns know * and ?; capitals and accents make no difference. codes: `value` or `scheme:value`. Thickness in mm.
    """

    name: str
    does: Literal["scope", "exclude", "urgent"]
    patients: tuple[str, ...] = ()
    patients_file: Path | None = None
    codes: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    min_thickness_mm: float | None = None
    max_thickness_mm: float | None = None
    min_slices: int | None = None
    max_slices: int | None = None

    def matches(self, facts: SeriesFacts) -> bool:
        """Whether a series meets all conditions. Raises SettingsError where the list of patients cannot be read."""
        return all(self._conditions(facts))

    def _conditions(self, facts: SeriesFacts) -> Iterator[bool]:
        if self.senders:
            yield facts.sender in self.senders
        if self.body_parts:
            yield like(facts.body_part, self.body_parts)
        if self.kernels:
            yield like(facts.kernel, self.kernels)
        if self.descriptions:
            yield any(like(said, self.descriptions) for said in facts.descriptions)
        if self.codes:
            known = {name for value, scheme, _meaning in facts.codes for name in (value, f"{scheme}:{value}")}
            yield not known.isdisjoint(self.codes)
        # What is not known meets no bound.
        if self.min_thickness_mm is not None:
            yield facts.thickness is not None and facts.thickness >= self.min_thickness_mm
        if self.max_thickness_mm is not None:
            yield facts.thickness is not None and facts.thickness <= self.max_thickness_mm
        if self.min_slices is not None:
            yield facts.slices >= self.min_slices
        if self.max_slices is not None:
            yield facts.slices <= self.max_slices
        if self.patients or self.patients_file is not None:
            yield bool(facts.patient_id) and facts.patient_id in {*self.patients, *self._listed()}

    def _listed(self) -> Iterable[str]:
        """Read the list each time: somebody keeps it up to date while we work."""
        if self.patients_file is None:
            return ()
        try:
            lines = self.patients_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise SettingsError(
                f"The patients of rule {self.name} cannot be read from {self.patients_file}: {reason}."
            ) from error
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def like(value: str, patterns: Iterable[str]) -> bool:
    """Whether a value meets one of the patterns."""
    plain = _plain(value)
    return any(fnmatchcase(plain, _plain(pattern)) for pattern in patterns)


def _plain(value: str) -> str:
    """Return a text without capitals and accents."""
    parts = unicodedata.normalize("NFKD", value)
    return "".join(part for part in parts if not unicodedata.combining(part)).casefold().strip()
