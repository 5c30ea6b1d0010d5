"""The battery: what a model says of what it must not name, and of what it must name rightly or not at all.

Needs no torch: a bundle that comes without an answer is asked when it is imported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from models.classifier import Classifier
from models.verdict import silent_about_all
from training.phantom.disease import DISEASES
from training.phantom.others import OTHERS
from training.phantom.strange import STRANGE
from training.unknowns import ALTERATIONS, Drawing, Images, altered, draw_all, read_site

VERSION = 2  # a bundle that was asked by another one is asked anew
KINDS = (*OTHERS, *STRANGE)
EXAMS = 30  # of each kind
SITE = "site"
MOST_NAMED = 0.10  # of a kind
MOST_OVER_ALL = 0.05  # of all, by the upper end of a one-sided 95 % interval
_CONFIDENCE = 0.95
# What a bundle with classes of its own for them may call these.
_RIGHT = {"normal": "normal", "emphysema": "other", "consolidation": "other", "nodules": "other"}
_MORE = 4  # so many times as many are drawn of a kind as are asked about, where some never reach the network
RULE = (
    "Passed with 30 exams of each kind or more, of which at most 10 % of a kind are named wrongly, and at most 5 % of "
    "all that were drawn by the upper end of a one-sided 95 % interval (Clopper and Pearson: none of 59, one of 93); "
    "likewise of UIP and NSIP phantoms that are turned, shifted or blurred. Exams without slices enough for a verdict "
    "do not count."
)


@dataclass(frozen=True)
class Count:
    """How many exams of a kind were asked about, and of how many the wrong thing was said."""

    asked: int
    wrong: int

    @property
    def upper_bound(self) -> float:
        """The upper end of the one-sided 95 % interval of the part that is wrong (Clopper & Pearson 1934)."""
        if self.wrong >= self.asked:  # none was asked, or all were wrong
            return 1.0
        return float(beta.ppf(_CONFIDENCE, self.wrong + 1, self.asked - self.wrong))


@dataclass(frozen=True)
class Battery:
    """What a bundle said. unknowns: by kind, with those that were named; signs: altered UIP and NSIP, by alteration."""

    seed: int
    unknowns: Mapping[str, Count]
    signs: Mapping[str, Count]
    silent: str = ""

    @property
    def passed(self) -> bool:
        """Whether the rule is kept; a bundle that gives no verdict on anybody names nobody."""
        return bool(self.silent) or all(_kept(part) for part in (self.unknowns, self.signs))

    @property
    def sentence(self) -> str:
        """What came of it, for people."""
        if self.silent:
            return f"Not asked, for it gives no verdict on anybody: {self.silent}."
        unknowns, signs = _all(_drawn(self.unknowns)), _all(self.signs)
        said = (
            f"{unknowns.wrong} of {unknowns.asked} unknown exams were named (at most "
            f"{unknowns.upper_bound:.1%}), {signs.wrong} of {signs.asked} altered ones wrongly."
        )
        site = self.unknowns.get(SITE)
        if site is not None:
            said += f" Of the site's own {site.wrong} of {site.asked}."
        faults = [*_faults(self.unknowns, "named"), *_faults(self.signs, "wrong")]
        few = [kind for kind, each in self.unknowns.items() if each.asked < (1 if kind == SITE else EXAMS)]
        judged = "It passed." if self.passed else "It failed."
        judged += f" Too many: {', '.join(faults)}." if faults else ""
        return f"{said} {judged}" + (f" Too few were asked: {', '.join(few)}." if few else "")

    def as_json(self) -> dict[str, Any]:
        """Return it as a manifest keeps it."""
        unknowns = _all(_drawn(self.unknowns))
        return {
            "version": VERSION,
            "seed": self.seed,
            "passed": self.passed,
            "silent": bool(self.silent),
            "sentence": self.sentence,
            "rule": RULE,
            "asked": unknowns.asked,
            "named": unknowns.wrong,
            "upper_bound": round(unknowns.upper_bound, 4) if unknowns.asked else None,
            "kinds": {kind: {"asked": each.asked, "named": each.wrong} for kind, each in self.unknowns.items()},
            "signs": {kind: {"asked": each.asked, "wrong": each.wrong} for kind, each in self.signs.items()},
        }


def ask(
    classifier: Classifier,
    *,
    exams: int = EXAMS,
    unknowns: Path | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Battery:
    """Ask a bundle, as it serves, about so many exams of each kind. The seed follows from its checksum.

    unknowns: a folder of the site's own exams that are none of the model's business. The classifier was made with
    `asked`: otherwise it would say nothing.
    """
    description = classifier.bundle.description
    seed = int(classifier.bundle.sha256[:8], 16)
    silence = silent_about_all(description.guard)
    if silence is not None:
        return Battery(seed, {}, {}, silence[1])
    classes = description.class_names
    # A disease that the bundle has no class for is as unknown to it as any other.
    kinds = (*KINDS, *(name for name in DISEASES if name not in classes))
    signs = tuple(name for name in DISEASES if name in classes)
    total = exams * (len(kinds) + len(signs))
    examiner = _Examiner(classifier, exams, lambda done: progress(min(done, total), total))
    unknown = examiner.ask({kind: seed + place for place, kind in enumerate(kinds)})
    altered_ones = examiner.ask({name: seed + 101 + place for place, name in enumerate(signs)}, alter=True)
    if unknowns is not None:
        said = [one for _name, images in read_site(unknowns, description.preprocessing)
                if (one := examiner.says(images, phantom=False)) is not None]  # fmt: skip
        unknown[SITE] = Count(len(said), sum(one in DISEASES for one in said))
    return Battery(seed, unknown, altered_ones)


class _Examiner:
    """Asks a bundle about phantoms, as many of each kind as shall come to a verdict or an abstention."""

    def __init__(self, classifier: Classifier, exams: int, progress: Callable[[int], None]) -> None:
        self._classifier, self._exams, self._progress = classifier, exams, progress
        self._done = 0

    def ask(self, seeds: Mapping[str, int], *, alter: bool = False) -> dict[str, Count]:
        """Return what was said wrongly of each condition; or, of altered ones, of each alteration."""
        rng = np.random.default_rng([*seeds.values(), 11])
        asked = dict.fromkeys(ALTERATIONS if alter else seeds, 0)
        wrong = dict.fromkeys(asked, 0)
        left = dict.fromkeys(seeds, self._exams)
        for turn in range(_MORE):
            first = turn * self._exams
            drawings = [Drawing(kind, seed, first + number) for kind, seed in seeds.items()
                        for number in range(left[kind])]  # fmt: skip
            drawn = draw_all(drawings, self._classifier.bundle.description.preprocessing)
            for drawing, images in zip(drawings, drawn, strict=True):
                if len(images) < self._classifier.bundle.description.operating_point.min_slices:
                    continue
                left[drawing.condition] -= 1
                for name in ALTERATIONS if alter else (drawing.condition,):
                    said = self.says(altered(images, name, rng) if alter else images, phantom=True)
                    right = drawing.condition if alter else _RIGHT.get(drawing.condition)
                    asked[name] += 1
                    wrong[name] += said not in ("", right)
                self._done += 1
                self._progress(self._done)
        return {name: Count(asked[name], wrong[name]) for name in asked}

    def says(self, images: Images, *, phantom: bool) -> str | None:
        """Return the class that is named, nothing where none is; None of an exam without slices for a verdict."""
        description = self._classifier.bundle.description
        if len(images) < description.operating_point.min_slices:
            return None
        outputs = [output for _key, output in self._classifier.stream((None, image) for image in images)]
        verdict = self._classifier.decide(outputs, phantom=phantom).verdict
        return verdict if verdict in description.class_names else ""


def is_current(battery: Mapping[str, Any] | None) -> bool:
    """Whether answers that a bundle holds were given to the battery as it is now."""
    return battery is not None and battery.get("version") == VERSION


def _kept(counts: Mapping[str, Count]) -> bool:
    enough = all(each.asked >= (1 if kind == SITE else EXAMS) for kind, each in counts.items())
    return enough and not _faults(counts, "") and _all(_drawn(counts)).upper_bound <= MOST_OVER_ALL


def _drawn(counts: Mapping[str, Count]) -> dict[str, Count]:
    """All but the site's own: however many of these there are, they make up for none that is drawn."""
    return {kind: each for kind, each in counts.items() if kind != SITE}


def _faults(counts: Mapping[str, Count], word: str) -> list[str]:
    return [
        f"{each.wrong} of {each.asked} {kind} {word}".strip()
        for kind, each in counts.items()
        if each.wrong > MOST_NAMED * each.asked
    ]


def _all(counts: Mapping[str, Count]) -> Count:
    return Count(sum(each.asked for each in counts.values()), sum(each.wrong for each in counts.values()))
