"""What `reticula train` does: data set → splits → learning → figures → bundle."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from models.architectures import HounsfieldClassifier, parameter_count
from models.bundle import KNOWN_CLASSES, Bundle, Description
from models.preprocessing import Preprocessing
from training.assembly import ask_bundle, write_bundle
from training.calibration import UncalibratedError
from training.dataset import LabelledSlices
from training.errors import TrainingError
from training.experiment import Inherited, Measured, Protocol, measure, verdict_on_split
from training.features import FeatureCache
from training.fitting import UNWATCHED, Machine, Progress, Schedule
from training.learners import Fitted, LastLayerLearner, Learner, Views, WholeNetworkLearner
from training.predictions import Predictions, pooled
from training.protocols import Balance, Indices, Split, balanced, fewest_patients, patient_splits, study_split
from training.sides import Sides
from training.views import SYNTHETIC
from training.weights import Start, make_network, settle_statistics

FineTune = Literal["last", "all"]
_SETTLING_SLICES = 64
_NOT_OF_THE_RUN = ("command", "sides", "inherited", "battery", "unknowns")  # they change nothing that is gone on with
_NOTE = "run"  # the file that tells whose checkpoints lie beside it
_VIEWS = {
    "study": f"of each, {SYNTHETIC} synthetic images were added for training and validation",
    "random": "training saw a new random view of each in every epoch",
}


@dataclass(frozen=True)
class Recipe:
    """One training run.

    fine_tune: what learns, the last layer or everything. balance: what is done about classes of unequal size. folds:
    None to decide by the number of patients. both: whether the other protocol is measured too. limits: what the card
    warns of. parent: sha256 of the bundle that it starts from. inherited: the parent's calibration and where its exams
    lie, which hold where there are too few patients for others of its own. sides: where patients of earlier trainings
    stood. int8: whether an int8 network is made beside the other. battery: how many exams of each kind the bundle is
    asked about that it must not name; 0 for none, and then it abstains on everything. unknowns: the site's own.
    """

    name: str
    version: str
    architecture: str
    start: Start
    protocol: Protocol
    fine_tune: FineTune
    balance: Balance
    folds: int | None
    views: Views
    schedule: Schedule
    device: str
    both: bool
    limits: str
    command: str
    parent: str | None = None
    inherited: Inherited | None = None
    sides: Sides = field(default_factory=Sides)
    int8: bool = False
    battery: int = 0
    unknowns: Path | None = None


@dataclass(frozen=True)
class Observer:
    """Who is told: of features and slices (done, of how many), of epochs, and what is being done."""

    on_count: Callable[[int, int], None] = lambda _done, _total: None
    progress: Progress = UNWATCHED
    on_stage: Callable[[str], None] = lambda _name: None


@dataclass(frozen=True)
class Trained:
    """What a run made: the bundle, and each protocol that was measured."""

    bundle: Bundle
    measured: dict[Protocol, Measured]
    sentence: str | None
    parameters: int


class Run:
    """A recipe on its data; `splits` and `preprocessing` may be given where they are not the usual ones."""

    def __init__(
        self,
        recipe: Recipe,
        data: LabelledSlices,
        cache: Path,
        observer: Observer = Observer(),
        splits: dict[Protocol, list[Split]] | None = None,
        preprocessing: Preprocessing | None = None,
        held_out: Indices | None = None,
    ) -> None:
        """`held_out`: slices of patients that are kept for another day: nothing learns from them or is tested on them.

        Where they are given, `splits` are, and all slices that are not held out are learned from.
        """
        self.recipe = recipe
        self.data = data
        self.preprocessing = preprocessing or Preprocessing(size=data.images.shape[-1])
        self._cache = cache
        self._observer = observer
        seed = recipe.schedule.seed
        self._held_out = np.zeros(0, dtype=np.int64) if held_out is None else held_out
        # Where nobody else is there to test it, the candidate is tested on those that are kept for the comparison.
        self._compares = splits is not None and any(
            np.isin(split.test, self._held_out).any() for each in splits.values() for split in each
        )
        self._chosen = np.setdiff1d(balanced(data, recipe.balance, seed), self._held_out)
        self._splits = splits if splits is not None else self._draw(seed)
        self._network = make_network(recipe.architecture, len(data.classes), recipe.start, seed)
        if recipe.start.kind == "scratch" and recipe.fine_tune == "last":
            self._settle()
        self._learner = self._make_learner(data)

    def expected_seconds(self) -> float:
        """Return about how long learning will take, after trying a few slices."""
        tested, learned = self._all_indices()
        fits = [split.training for splits in self._splits.values() for split in splits]
        if self._cross_validates(self.recipe.protocol):
            fits.append(self._chosen)
        return self._learner.expected_seconds(tested, learned, sum(map(len, fits)))

    def features_kept(self) -> bool:
        """Whether all features that it needs are on disk already."""
        return self._learner.prepared(*self._all_indices())

    @property
    def chosen(self) -> Indices:
        """The slices that it works with."""
        return self._chosen

    def tested(self, data: LabelledSlices, splits: Sequence[Split]) -> Predictions:
        """Return what is said of the tests of these splits by networks that learned them; `data`: other labels, maybe.

        Nothing is calibrated and no bundle is written. Raises KeyboardInterrupt where Ctrl-C leaves a split undone.
        """
        learner, said = self._make_learner(data), []
        for split in splits:
            learner.prepare(split.test, np.concatenate([split.training, split.validation]))
            fitted = learner.fit(split.training, split.validation, progress=self._observer.progress)
            if fitted.course.interrupted:
                raise KeyboardInterrupt
            said.append(learner.judge(fitted, split.test))
        return pooled(said)

    def train(self, output: Path, *, resume: bool = False) -> Trained:
        """Write the bundle to `output`. Raises TrainingError; KeyboardInterrupt before there is anything to keep."""
        checkpoints = self._checkpoints(output, resume=resume)
        self._observer.on_stage("Features")
        self._learner.prepare(*self._all_indices())
        protocol = self.recipe.protocol
        measured: dict[Protocol, Measured] = {}
        measured[protocol], kept = self._measure(protocol, checkpoints)
        own = measured[protocol]
        if own.uncalibrated and not own.calibration.guard.missing and not kept.course.interrupted:
            shutil.rmtree(checkpoints)  # with fewer patients it would know nobody anyway, and chance may have done it
            raise UncalibratedError(own.uncalibrated)
        if self._cross_validates(protocol):  # the network that serves learns from all of them
            self._observer.on_stage("All patients")
            kept = self._learner.fit(
                self._chosen, self._chosen[:0], epochs=measured[protocol].epochs,
                checkpoint=checkpoints / "all.pt", progress=self._observer.progress,
            )  # fmt: skip
        inherited = self.recipe.inherited
        if inherited is not None and measured[protocol].calibrated_on == "the parent's patients":
            kept = replace(kept, familiarity=inherited.familiarity)
        interrupted = kept.course.interrupted
        with suppress(KeyboardInterrupt):  # Ctrl-C: what is there is kept, nothing more is begun
            for other in () if interrupted else (name for name in self._splits if name != protocol):
                interrupted = True
                found, _network = self._measure(other, checkpoints)
                interrupted = any(course.interrupted for course in found.courses)
                if not interrupted:
                    measured[other] = found
        sentence = verdict_on_split(measured["study"], measured["patient"]) if len(measured) == 2 else None
        description = self._describe(measured, sentence, kept, interrupted=interrupted)
        int8 = self.recipe.int8 and not interrupted
        if int8:
            self._observer.on_stage("Quantising")
        splits = self._splits[protocol]
        bundle = write_bundle(
            output, description, kept, self.data, list(measured.values()),
            seed=self.recipe.schedule.seed, replace=resume,
            int8=(self._chosen if self._cross_validates(protocol) else splits[0].training) if int8 else None,
            progress=self._observer.on_count,
        )  # fmt: skip
        if self.recipe.battery and not interrupted:
            self._observer.on_stage("Unknowns")
            bundle = ask_bundle(
                bundle, exams=self.recipe.battery, unknowns=self.recipe.unknowns, progress=self._observer.on_count
            )
        if not interrupted:
            shutil.rmtree(checkpoints)
        return Trained(bundle, measured, sentence, parameter_count(kept.network))

    def _cross_validates(self, protocol: Protocol) -> bool:
        """Whether whoever is tested in a split is learned from in others."""
        splits = self._splits.get(protocol, ())
        return len(splits) > 1 or (len(self._held_out) > 0 and not self._compares)

    def resumable(self, output: Path) -> bool:
        """Whether this run was begun before and stopped."""
        note = checkpoint_folder(output) / _NOTE
        return note.is_file() and note.read_text(encoding="utf-8") == self._key()

    def _measure(self, protocol: Protocol, checkpoints: Path) -> tuple[Measured, Fitted]:
        self._observer.on_stage("By slice" if protocol == "study" else "By patient")
        return measure(
            self._learner, self._splits[protocol], protocol,
            inherited=self.recipe.inherited, held_out=self._compares,
            select=self.recipe.schedule.select, checkpoints=checkpoints, progress=self._observer.progress,
        )  # fmt: skip

    def _draw(self, seed: int) -> dict[Protocol, list[Split]]:
        splits: dict[Protocol, list[Split]] = {}
        own = self.recipe.protocol
        if own == "study" or self.recipe.both:
            try:
                splits["study"] = [study_split(self.data, self._chosen, seed)]
            except TrainingError:  # too few slices: no reason not to measure by patient
                if own == "study":
                    raise
        if own == "patient" or (self.recipe.both and fewest_patients(self.data, self._chosen) > 1):
            splits["patient"] = patient_splits(self.data, self._chosen, self.recipe.folds, seed)
        return splits

    def _all_indices(self) -> tuple[Indices, Indices]:
        """Return the slices that are tested in some split, and those that are learned from or validate in some."""
        splits = [split for each in self._splits.values() for split in each]
        learned = [part for split in splits for part in (split.training, split.validation)]
        if self._cross_validates(self.recipe.protocol):
            learned.append(self._chosen)
        return np.unique(np.concatenate([split.test for split in splits])), np.unique(np.concatenate(learned))

    def _settle(self) -> None:
        rng = np.random.default_rng(self.recipe.schedule.seed)
        shown = np.sort(rng.permutation(self._chosen)[:_SETTLING_SLICES])
        model = HounsfieldClassifier(self._network, self.preprocessing, frozen=True)
        settle_statistics(model, torch.from_numpy(self.data.images[shown]).float()[:, None])

    def _make_learner(self, data: LabelledSlices) -> Learner:
        recipe = self.recipe
        wanted = recipe.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted == "cuda" and not torch.cuda.is_available():
            raise TrainingError("There is no GPU that torch can use here: take '--device cpu' or 'auto'.")
        device = torch.device(wanted)
        weighted = recipe.balance == "weights"
        if recipe.fine_tune == "last":
            cache = FeatureCache(self._cache, data, self._network, self.preprocessing, device)
            return LastLayerLearner(
                self._network, data, cache, recipe.schedule,
                weighted=weighted, on_feature=self._observer.on_count,
            )  # fmt: skip
        schedule = recipe.schedule
        if recipe.views.kind == "random":
            schedule = replace(
                schedule, selectable_from=schedule.epochs - min(recipe.views.full_epochs, schedule.epochs) + 1
            )
        machine = Machine.for_whole_networks(device)
        return WholeNetworkLearner(
            self._network, data, self.preprocessing, schedule, recipe.views, machine, weighted=weighted
        )

    def _checkpoints(self, output: Path, *, resume: bool) -> Path:
        """Return the folder of this run's checkpoints; only the same run goes on from it."""
        folder = checkpoint_folder(output)
        key, note = self._key(), folder / _NOTE
        if resume:
            if not note.is_file():
                raise TrainingError(f"There is no run of {output} to go on with: leave out --resume.")
            if note.read_text(encoding="utf-8") != key:
                raise TrainingError(f"The run in {folder} had other options or data: give the same, or remove it.")
            return folder
        if output.exists():
            raise TrainingError(f"{output} exists already: name a folder that does not, or remove it.")
        if note.is_file():
            raise TrainingError(f"A run of {output} was stopped: go on with --resume, or remove {folder}.")
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(key, encoding="utf-8")
        return folder

    def _key(self) -> str:
        """Hash of everything that decides what this run makes."""
        start, data = self.recipe.start.file, self.data
        identity = {
            **{name: value for name, value in asdict(self.recipe).items() if name not in _NOT_OF_THE_RUN},
            "start": None if start is None else hashlib.sha256(start.read_bytes()).hexdigest(),
            # The splits follow the patients and the order of the slices, not only what the slices show.
            "rows": list(zip(data.digests, data.kinds, data.patients, data.exams, strict=True)),
            "splits": [[part.tolist() for part in _parts(split)] for each in self._splits.values() for split in each],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()

    def _describe(
        self, measured: dict[Protocol, Measured], sentence: str | None, kept: Fitted, *, interrupted: bool
    ) -> Description:
        recipe, data = self.recipe, self.data
        calibration = measured[recipe.protocol].calibration
        return Description(
            name=recipe.name,
            version=recipe.version,
            architecture=recipe.architecture,
            classes=tuple(KNOWN_CLASSES[name] for name in data.classes),
            preprocessing=self.preprocessing,
            operating_point=calibration.operating_point,
            temperature=calibration.temperature,
            metrics={
                "protocol": recipe.protocol,
                **{protocol: each.as_json() for protocol, each in measured.items()},
                "sentence": sentence,
                "epochs": [asdict(epoch) for epoch in kept.course.epochs],
                "interrupted": interrupted,
            },
            data={
                "fingerprint": data.fingerprint,
                "classes": [asdict(count) for count in data.counts()],
                "slices": len(data),
                "slices_used": len(self._chosen),
                "exams": len(np.unique(data.exams)),
                "patients": len(np.unique(data.patients)),
                "left_out": len(data.skipped),
                "started_from": str(recipe.start),
                "learned": "the last layer" if recipe.fine_tune == "last" else "the whole network",
                "views": _VIEWS[recipe.views.kind],
                "limits": recipe.limits,
                "patients_by_side": self._sides(measured[recipe.protocol].splits).as_json(),
            },
            command=recipe.command,
            parent=recipe.parent,
            guard=calibration.guard,
        )

    def _sides(self, splits: Sequence[Split]) -> Sides:
        """Who stood on which side of the split; after a cross-validation all were learned from."""
        if self._cross_validates(self.recipe.protocol):
            names = self.data.patients
            return self.recipe.sides.including(
                {"training": names[self._chosen].tolist(), "test": names[self._held_out].tolist()}
            )
        (only,) = splits
        parts = {"test": only.test, "validation": only.validation, "training": only.training}
        return self.recipe.sides.including({name: self.data.patients[rows].tolist() for name, rows in parts.items()})


def _parts(split: Split) -> tuple[Indices, Indices, Indices]:
    return split.training, split.validation, split.test


def checkpoint_folder(output: Path) -> Path:
    """Return where the checkpoints of the run that makes `output` lie while it is not done."""
    return output.parent / f".{output.name}.run"
