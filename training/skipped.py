"""What of a data set was not read, and why: listed, and counted for the sentence that nothing is left."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_TOLD = 3  # reasons, the commonest
_NO_LUNG = "shows too little lung"


class Skipped:
    """Files and folders that were passed over while the sources of one class after another are read.

    listed: (file or folder, why), as people are told. Slices above and below the lungs are only counted: every CT has
    them.
    """

    def __init__(self) -> None:
        self.listed: list[tuple[Path, str]] = []
        self._counts: dict[str, Counter[str]] = {}
        self._examples: dict[tuple[str, str], Path] = {}
        self._label = ""

    def of(self, label: str) -> None:
        """What comes now is of this class."""
        self._label = label

    def add(self, path: Path, why: str) -> None:
        """Note a file or a folder."""
        self.listed.append((path, why))
        self._count(path, why)

    def extend(self, several: Iterable[tuple[Path, str]]) -> None:
        """Note several."""
        for path, why in several:
            self.add(path, why)

    def without_lung(self, path: Path) -> None:
        """Count a slice that shows too little lung."""
        self._count(path, _NO_LUNG)

    def reasons(self, label: str | None = None) -> str:
        """Return the commonest reasons of a class, or of all, with how often and for example where."""
        labels = list(self._counts) if label is None else [label]
        counts = sum((self._counts.get(name, Counter()) for name in labels), Counter[str]())
        if not counts:
            return "there is no file"
        told = []
        for why, count in counts.most_common(_TOLD):
            example = next(self._examples[name, why] for name in labels if (name, why) in self._examples)
            told.append(f"{count} × {why.rstrip('.')} ({example})")
        rest = sum(counts.values()) - sum(count for _why, count in counts.most_common(_TOLD))
        return "; ".join(told) + (f"; and {rest} for other reasons" if rest else "")

    def _count(self, path: Path, why: str) -> None:
        # A reason may quote its file, which would make every one of its own kind.
        plain = why.replace(str(path), "the file").replace(path.name, "the file")
        self._counts.setdefault(self._label, Counter())[plain] += 1
        self._examples.setdefault((self._label, plain), path)
