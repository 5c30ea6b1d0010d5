"""Which series speaks for a study that brings several reconstructions: lung kernel, then thin, then the most slices."""

from collections.abc import Iterable
from dataclasses import dataclass

from worker.rules.conditions import like


@dataclass(frozen=True, order=True)
class Standing:
    """The place of a series among those of its study: the smallest speaks."""

    other_kernel: bool
    thickness: float
    fewer_slices: int
    series_uid: str


class Preference:
    """kernels: patterns of reconstruction kernels that show lungs best; without a kernel, of words of the description.

    others: what becomes of the other series of a study, `keep` or `classify`.
    """

    def __init__(self, kernels: Iterable[str], *, keep_others: bool) -> None:
        self._kernels = tuple(kernels)
        self.keep_others = keep_others

    def standing(
        self, series_uid: str, *, kernel: str, description: str, thickness: float | None, slices: int
    ) -> Standing:
        """Return where a series stands; of one whose header tells nothing the worst is believed. Thickness in mm."""
        # A kernel that is named tells what it is; a description may speak of lungs for other reasons.
        words = [kernel] if kernel else description.replace(",", " ").split()
        lung = any(like(word, self._kernels) for word in words)
        known = thickness if thickness is not None and thickness > 0 else float("inf")
        return Standing(not lung, known, -slices, series_uid)

    def sentence(self, series_uid: str, standing: Standing) -> str:
        """Say why another series does not speak for the study."""
        traits = [
            "another kernel" if standing.other_kernel else "lung kernel",
            *([f"{standing.thickness:g} mm"] if standing.thickness != float("inf") else []),
            f"{-standing.fewer_slices} slices",
        ]
        return f"Series {series_uid} speaks for this study ({', '.join(traits)})."
