"""The battery: what a model says of what it must not name, and of what it must name rightly or not at all.

Needs no torch: a bundle that comes without an answer is asked when it is imported.
"""

from collections.abc import Callable, Iterator, Mapping
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

VERSION = 1  # a bundle that was asked by another one is asked anew
KINDS = (*OTHERS, *STRANGE)
EXAMS = 30  # of each kind
SITE = "site"
MOST_NAMED = 0.10  # of a kind
MOST_OVER_ALL = 0.05  # of all, by the upper end of a one-sided 95 % interval
_CONFIDENCE = 0.95
RULE = (
    "Passed with 30 exams of each kind or more, of which at most 10 % of a kind are named UIP or NSIP, and at most 5 % "
    "of all by the upper end of a one-sided 95 % interval (Clopper and Pearson: none of 59, one of 93); likewise of "
    "UIP and NSIP phantoms that are turned, shifted or blurred those that are named wrongly."
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
        unknowns, signs = _all(self.unknowns), _all(self.signs)
        said = (
            f"{unknowns.wrong} of {unknowns.asked} unknown exams were named UIP or NSIP (at most "
            f"{unknowns.upper_bound:.1%}), {signs.wrong} of {signs.asked} altered ones wrongly."
        )
        faults = [*_faults(self.unknowns, "named"), *_faults(self.signs, "wrong")]
        judged = "It passed." if self.passed else "It failed."
        return f"{said} {judged}" + (f" Too many: {', '.join(faults)}." if faults else "")

    def as_json(self) -> dict[str, Any]:
        """Return it as a manifest keeps it."""
        unknowns = _all(self.unknowns)
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
    signs = [name for name in DISEASES if name in description.class_names]
    drawings = [Drawing(kind, seed + place, number) for place, kind in enumerate(KINDS) for number in range(exams)]
    known = [Drawing(kind, seed + len(KINDS) + place, number)
             for place, kind in enumerate(signs) for number in range(exams)]  # fmt: skip
    named = dict.fromkeys(KINDS, 0)
    wrong = dict.fromkeys(ALTERATIONS, 0)
    total = len(drawings) + len(known)
    rng = np.random.default_rng([seed, 11])
    drawn = draw_all([*drawings, *known], description.preprocessing)
    for done, (drawing, images) in enumerate(zip([*drawings, *known], drawn, strict=True), start=1):
        if drawing.condition in named:
            named[drawing.condition] += _says(classifier, images, phantom=True) in DISEASES
        else:
            for alteration in ALTERATIONS:
                said = _says(classifier, altered(images, alteration, rng), phantom=True)
                wrong[alteration] += said is not None and said != drawing.condition
        progress(done, total)
    counts = {kind: Count(exams, number) for kind, number in named.items()}
    if unknowns is not None:
        answers = list(_of_the_site(classifier, unknowns))
        counts[SITE] = Count(len(answers), sum(answers))
    return Battery(seed, counts, {kind: Count(exams * len(signs), number) for kind, number in wrong.items()})


def is_current(battery: Mapping[str, Any] | None) -> bool:
    """Whether answers that a bundle holds were given to the battery as it is now."""
    return battery is not None and battery.get("version") == VERSION


def _of_the_site(classifier: Classifier, folder: Path) -> Iterator[bool]:
    for _name, images in read_site(folder, classifier.bundle.description.preprocessing):
        yield _says(classifier, images, phantom=False) in DISEASES


def _says(classifier: Classifier, images: Images, *, phantom: bool) -> str | None:
    """Return the class that is named; None where nothing is: without slices with lung an exam is never classified."""
    if not images:
        return None
    outputs = [output for _key, output in classifier.stream((None, image) for image in images)]
    verdict = classifier.decide(outputs, phantom=phantom)
    return verdict.verdict if verdict.verdict in classifier.bundle.description.class_names else None


def _kept(counts: Mapping[str, Count]) -> bool:
    enough = all(each.asked >= (1 if kind == SITE else EXAMS) for kind, each in counts.items())
    return enough and not _faults(counts, "") and _all(counts).upper_bound <= MOST_OVER_ALL


def _faults(counts: Mapping[str, Count], word: str) -> list[str]:
    return [
        f"{each.wrong} of {each.asked} {kind} {word}".strip()
        for kind, each in counts.items()
        if each.wrong > MOST_NAMED * each.asked
    ]


def _all(counts: Mapping[str, Count]) -> Count:
    return Count(sum(each.asked for each in counts.values()), sum(each.wrong for each in counts.values()))
