"""What models name that they must not: `python -m tests.honesty --weights FILE --real FOLDER` writes docs/honesty.md.

Phantoms pass for patients here, each a patient of its own: no public CT is labelled UIP or NSIP. About half an hour on
two cores.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from models.bundle import Bundle, open_bundle
from models.classifier import Classifier
from models.verdict import silent_about_all
from tests.honesty import material
from tests.honesty.material import ShownExam
from training.battery import MOST_NAMED, MOST_OVER_ALL, Count
from training.calibration import UncalibratedError
from training.dataset import LabelledSlices
from training.fitting import Schedule
from training.learners import Views
from training.phantom.disease import DISEASES
from training.recipe import Observer, Recipe, Run
from training.retraining import retrain
from training.weights import Start
from worker.registry import demo_bundle

_SEED = 510_000


@dataclass(frozen=True)
class Asked:
    """What a bundle said of exams that it had never seen."""

    name: str
    silent: str
    unknowns: Counter[str]
    named: Counter[str]
    known: int
    decided: int
    wrong: int

    def line(self) -> str:
        """Return it as a row of the table."""
        drawn = sum(count for kind, count in self.unknowns.items() if kind != "real CT")
        named = sum(count for kind, count in self.named.items() if kind != "real CT")
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.named.items() if count and kind != "real CT")
        return (
            f"| {self.name} | {self.silent or self._fate()} | {_part(named, drawn)}{f': {kinds}' if kinds else ''} | "
            f"{self.named['real CT']} of {self.unknowns['real CT']} | {_part(self.decided, self.known)} | "
            f"{_part(self.wrong, self.decided)} |"
        )

    def _fate(self) -> str:
        """What becomes of a bundle that speaks: these unknowns are of the kinds that its battery asks about."""
        drawn = [Count(count, self.named[kind]) for kind, count in self.unknowns.items() if kind != "real CT"]
        everything = Count(sum(each.asked for each in drawn), sum(each.wrong for each in drawn))
        kept = all(each.wrong <= MOST_NAMED * each.asked for each in drawn)
        return "speaks" if kept and everything.upper_bound <= MOST_OVER_ALL else "fails its battery: not active"


def _part(count: int, of: int) -> str:
    """A count of how many, with the exact 95 % interval (Clopper & Pearson 1934)."""
    if not of:
        return f"{count} of 0"
    interval = binomtest(count, of).proportion_ci(0.95)
    return f"{count} of {of} ({interval.low:.0%} to {interval.high:.0%})"


class Questions:
    """Exams that no bundle has seen: the same ones for all."""

    def __init__(self, each: int, known: int, folder: Path) -> None:
        self._unknowns = [*material.unknowns(each, _SEED), *material.real(folder)]
        self._known = material.known(known, _SEED + 5000)

    def ask(self, name: str, bundle: Bundle, *, phantoms: bool = False) -> Asked:
        """Ask a bundle. phantoms: whether the drawn exams say that they are phantoms."""
        classifier = Classifier(bundle, asked=True)
        named = Counter(
            exam.kind
            for exam in self._unknowns
            if _says(classifier, exam, phantom=phantoms and exam.kind != "real CT") in DISEASES
        )
        said = [(exam.kind, _says(classifier, exam, phantom=phantoms)) for exam in self._known]
        decided = [(truth, verdict) for truth, verdict in said if verdict in DISEASES]
        silence = silent_about_all(bundle.description.guard)
        asked = Asked(
            name, "" if silence is None else f"silent: `{silence[0]}`",
            Counter(exam.kind for exam in self._unknowns), named,
            len(said), len(decided), sum(truth != verdict for truth, verdict in decided),
        )  # fmt: skip
        print(asked.line(), flush=True)  # noqa: T201
        return asked


def _says(classifier: Classifier, exam: ShownExam, *, phantom: bool) -> str:
    if not exam.images:
        return "no lungs"
    outputs = [output for _key, output in classifier.stream((None, image) for image in exam.images)]
    return classifier.decide(outputs, phantom=phantom).verdict


class School:
    """Trains bundles as `reticula train` and `reticula retrain` do, without the battery: it is asked here."""

    def __init__(self, weights: Path, folder: Path) -> None:
        self._weights, self._folder = weights, folder

    def train(self, name: str, data: LabelledSlices) -> Bundle:
        """Train the last layer on ImageNet's features, as the commands do unless they are told otherwise."""
        recipe = Recipe(
            name="honesty", version=name, architecture="mobilenet_v2", start=Start("file", self._weights),
            protocol="patient", fine_tune="last", balance="undersample", folds=None, views=Views(),
            schedule=Schedule(), device="cpu", both=False, limits="For a measurement.",
            command="python -m tests.honesty",
        )  # fmt: skip
        run = Run(recipe, data, self._folder / "features", Observer())
        return run.train(self._folder / name).bundle

    def retrain(self, name: str, active: Bundle, data: LabelledSlices) -> Bundle:
        """Make a candidate from a bundle and newly labelled exams."""
        candidate, _held_out = retrain(
            active, data, self._folder / name, self._folder / "features", version=name, fine_tune="last", epochs=30,
            command="python -m tests.honesty", observer=Observer(), battery=0,
        )  # fmt: skip
        return candidate


def measure(weights: Path, real: Path, each: int, known: int) -> tuple[list[Asked], list[str]]:
    """Ask all bundles; return the rows, and what wrong labels led to."""
    questions = Questions(each, known, real)
    rows: list[Asked] = []
    sentences: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        school = School(weights, Path(place))
        newer = material.known(12, _SEED + 9000)
        demo = open_bundle(demo_bundle())
        rows.append(questions.ask("demo, phantoms that say so", demo, phantoms=True))
        rows.append(questions.ask("demo, the same exams as patients", demo))
        retrained = school.retrain("demo-again", demo, material.as_patients(newer))
        rows.append(questions.ask("demo after a retraining with 24 patients, phantoms", retrained, phantoms=True))
        rows.append(questions.ask("demo after a retraining with 24 patients, patients", retrained))
        everybody = material.known(30, _SEED + 7000)
        for count in (8, 20, 60):
            patients = _first(everybody, count // 2)
            bundle = school.train(f"of-{count}", material.as_patients(patients))
            rows.append(questions.ask(f"{count} patients", bundle))
            again = school.retrain(f"of-{count}-again", bundle, material.as_patients([*patients, *newer]))
            rows.append(questions.ask(f"{count} patients, retrained with 24 more", again))
            if count == 60:
                for said, labels in _wrong(newer):
                    learned = material.as_patients([*patients, *newer], labels)
                    taught = school.retrain(f"of-60-{said.replace(' ', '-')}", bundle, learned)
                    rows.append(questions.ask(f"60 patients, retrained with 24 more, {said}", taught))
        others = material.draw({"normal": 15, "emphysema": 15}, _SEED + 8000)
        bundle = school.train("of-60-and-others", material.as_patients([*everybody, *others]))
        rows.append(questions.ask("60 patients, and 30 others as background", bundle))
        for said, labels in _wrong(everybody):
            try:
                bundle = school.train(said.replace(" ", "-"), material.as_patients(everybody, labels))
            except UncalibratedError as error:
                sentences.append(f"60 patients, {said}: no bundle is made. «{error}»")
                print(sentences[-1], flush=True)  # noqa: T201
                continue
            rows.append(questions.ask(f"60 patients, {said}", bundle))
    return rows, sentences


def _wrong(exams: Sequence[ShownExam]) -> tuple[tuple[str, dict[str, str]], ...]:
    """Return labels that are wrong, each kind with its name."""
    return (
        ("all labels inverted", material.inverted(exams)),
        ("labels drawn by lot", material.at_random(exams, 0.5, 1)),
        ("20 % of the labels wrong", material.at_random(exams, 0.2, 1)),
    )


def _first(exams: Sequence[ShownExam], each: int) -> list[ShownExam]:
    return [exam for kind in DISEASES for exam in [one for one in exams if one.kind == kind][:each]]


_PAGE = """# What a model names that it must not

Written by `{command}`. All are asked about exams that none has seen, the same for all. Phantoms
pass for patients here, each of them a patient of its own, for no public CT is labelled UIP or NSIP; real CT is of two
lung cancer patients, two series each. Networks are MobileNetV2 on ImageNet's features, last layer, as `reticula train`
has it. «Fails its battery» is said by its rule and these unknowns: such a bundle does not become active unless a person
says `--despite "why"`.

| bundle | | unknowns named UIP or NSIP | real CT named | exams with a verdict | of these wrong |
| --- | --- | --- | --- | --- | --- |
{rows}

Exams with a verdict: of UIP and NSIP phantoms. Intervals are exact 95 % ones (Clopper and Pearson), over exams.

## Wrong labels

{sentences}- Labels that are all inverted from the beginning give a model that says the opposite. No figure
  shows it, for the figures are of the same labels.
- Before `reticula retrain` learns from labels it looks at them, and with more than one in ten suspect it trains nothing
  until a person confirms them; the rows above show what a retraining without that look leads to. None of these
  candidates becomes active by itself: `docs/promotion.md`.
"""


def page(rows: Sequence[Asked], sentences: Sequence[str], command: str) -> str:
    """Return the table as Markdown."""
    return _PAGE.format(
        command=command,
        rows="\n".join(row.line() for row in rows),
        sentences="".join(f"- {sentence}\n" for sentence in sentences),
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights for MobileNetV2 (.safetensors)")
    parser.add_argument("--real", type=Path, required=True, help="folder of real chest CT without UIP or NSIP")
    parser.add_argument("--each", type=int, default=30, help="unknown exams of each kind")
    parser.add_argument("--known", type=int, default=40, help="UIP and NSIP exams of each")
    parser.add_argument("--output", type=Path, default=Path("docs/honesty.md"))
    given = parser.parse_args()
    rows, sentences = measure(given.weights, given.real, given.each, given.known)
    command = f"python -m tests.honesty --weights … --real … --each {given.each} --known {given.known}"
    given.output.write_text(page(rows, sentences, command), encoding="utf-8")


if __name__ == "__main__":
    main()
