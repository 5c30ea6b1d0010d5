"""Retraining as the application does it: labelled exams and base data in, a candidate out.

It is promoted where it is shown to be better and to harm nobody, and else a challenger.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.bundle import Bundle, open_bundle
from pacs.errors import Rejected
from pacs.series import read_series
from training.sources import Source, find_sources
from worker import exams, labels, training_runs
from worker.application import Application
from worker.errors import NotFoundError, WorkerError
from worker.label_check import LabelCheck, check_labels
from worker.privacy import is_hashed
from worker.registry import Questions
from worker.tables import Classification, ModelVersion, Series

if TYPE_CHECKING:
    from training.dataset import LabelledSlices
    from training.promotion.decision import Decision, Question
    from training.recipe import Observer


@dataclass(frozen=True)
class Options:
    """What a retraining is asked for. dataset: the base data, None for the setting.

    confirm_labels: why labels that look wrong may be learned from all the same.
    """

    dataset: Path | None = None
    fine_tune: str = "last"
    epochs: int = 30
    confirm_labels: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the options as SQL keeps them."""
        return {**self.__dict__, "dataset": None if self.dataset is None else str(self.dataset)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Options":
        """Return what `as_json` wrote."""
        dataset = content["dataset"]
        return cls(
            None if dataset is None else Path(dataset), content["fine_tune"], content["epochs"],
            content.get("confirm_labels"),
        )  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What a retraining has to learn from. unusable: (series, why) of labelled exams that cannot be used."""

    model: ModelVersion
    bundle: Bundle
    base: tuple[Source, ...]
    labelled: tuple[Source, ...]
    unusable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a retraining."""

    model: ModelVersion
    decision: "Decision"


def gather(application: Application, options: Options) -> Material:
    """Collect base data and labelled exams. Raises WorkerError where there is nothing to start from."""
    with application.database.read() as session:
        model = application.registry.active(session)
    if model is None:
        raise WorkerError("There is no active model to retrain: import one with 'reticula models import'.")
    dataset = options.dataset or application.settings.training.dataset
    base = tuple(find_sources(dataset)) if dataset is not None else ()
    labelled, unusable = labelled_exams(application)
    if not base and not labelled:
        raise WorkerError(
            "There is nothing to learn from: label exams with 'reticula exams label', or name base data with --dataset."
        )
    return Material(model, _with_answers(application, model), base, tuple(labelled), tuple(unusable))


def _with_answers(application: Application, model: ModelVersion) -> Bundle:
    """Return a version's bundle with what it said of unknowns, whether or not it holds that itself."""
    bundle = open_bundle(application.registry.folder(model))
    return replace(bundle, description=replace(bundle.description, battery=model.battery))


def read(
    material: Material,
    say: Callable[[str], None],
    progress: Callable[[int], None] = lambda _done: None,
) -> "LabelledSlices":
    """Read what was gathered, for the network of the active model; `say` is told what was left out."""
    from training.dataset import load

    description = material.bundle.description
    data = load(
        [*material.base, *material.labelled],
        description.preprocessing,
        classes=description.class_names,
        threads=os.cpu_count() or 1,
        progress=progress,
    )
    for series_uid, why in material.unusable:
        say(f"Labelled series {series_uid} is left out: {why}")
    for path, why in data.skipped:
        say(f"Left out {path}: {why}")
    return data


def checked(application: Application, model: ModelVersion | None, confirmed: str | None) -> LabelCheck:
    """Look at the labels before anything learns from them; confirmed: why they may be learned from all the same.

    Raises WorkerError where more look wrong than may, and nobody has confirmed them.
    """
    with application.database.read() as session:
        found = check_labels(session, model)
    if found.too_many and not confirmed:
        raise WorkerError(
            f"{found.summary()} Nothing is trained: 'reticula retrain --dry-run' lists them; mend them with "
            "'reticula exams label', or confirm them with --confirm-labels \"why\"."
        )
    return found


def ask(application: Application, material: Material, data: "LabelledSlices") -> "Question":
    """Settle on which patients the next candidate is judged, and with how much error."""
    from training.promotion.decision import Question
    from training.sides import Sides

    with application.database.read() as session:
        salt, earlier = training_runs.decisions(session)
    return Question.about(data, Sides.of(material.bundle), earlier, salt)


def judged_with(material: Material, question: "Question") -> Bundle:
    """Return the active bundle with the sides of this question: patients of ended groups may be learned from."""
    from training.sides import Sides

    return Sides.of(material.bundle).released(question.plan.released).remembered_by(material.bundle)


def run(
    application: Application,
    material: Material,
    data: "LabelledSlices",
    options: Options,
    observer: "Observer",
    *,
    name: str,
    actor: str,
    command: str,
    also: Callable[[Session, "Decision", ModelVersion], None] = lambda _session, _decision, _model: None,
) -> Outcome:
    """Train a candidate, compare it, import it, promote it if it is better. A run of the same name is gone on with.

    `also` is done in the transaction that settles the candidate: promoted or not, it is told once.
    """
    from training.promotion.decision import decide_promotion
    from training.retraining import retrain

    question = ask(application, material, data)

    workplace = application.settings.data_dir / "training"
    workplace.mkdir(parents=True, exist_ok=True, mode=0o750)
    output = workplace / name
    candidate, held_out = retrain(
        judged_with(material, question), data, output, application.settings.data_dir / "features",
        version=_free_version(application, material.model, name),
        fine_tune="all" if options.fine_tune == "all" else "last",
        epochs=options.epochs, command=command, observer=observer, int8=application.settings.training.int8,
        battery=application.settings.training.battery, unknowns=application.settings.training.unknowns,
    )  # fmt: skip
    observer.on_stage("Comparing")
    scanners = scanners_of(application, material)
    decision = decide_promotion(material.bundle, candidate, data, held_out, question, scanners)
    asked = application.settings.training
    model = application.registry.import_bundle(
        str(output), actor=actor, questions=Questions(asked.battery, asked.unknowns)
    )
    if decision.promote and application.settings.model is not None:
        decision = decision.withheld(
            f"Not promoted: the setting 'model' says {application.settings.model}, whatever is promoted. "
            f"Without it: {decision.sentence}"
        )
    settled = decision.promote and application.registry.promote_after(
        model, expected=material.model, actor=actor, reason=decision.sentence,
        also=lambda session: also(session, decision, model),
    )  # fmt: skip
    if not settled:
        if decision.promote:
            decision = decision.withheld("Not promoted: another model was made active while this one was trained.")
        with application.database.write() as session:
            also(session, decision, model)
    shutil.rmtree(output, ignore_errors=True)
    return Outcome(model, decision)


def _free_version(application: Application, parent: ModelVersion, name: str) -> str:
    """Return a version that no imported model of this name has."""
    taken = {version.version for version in application.registry.all() if version.name == parent.name}
    plain = f"{parent.version.partition('+')[0]}+{name}"
    numbered = (f"{plain}.{number}" for number in count(2))
    return next(each for each in chain([plain], numbered) if each not in taken)


def clear(application: Application, name: str) -> None:
    """Remove what a run that is not gone on with has left."""
    from training.recipe import checkpoint_folder

    output = application.settings.data_dir / "training" / name
    for folder in (output, checkpoint_folder(output)):
        shutil.rmtree(folder, ignore_errors=True)


def scanners_of(application: Application, material: Material) -> dict[str, str]:
    """Return maker and kernel by series, as SQL knows them, or as a file of each folder of the base data says."""
    found: dict[str, str] = {}
    folders = {path.parent: path for source in material.base if not source.pictures for path in source.files}
    for path in folders.values():
        with suppress(Rejected):  # what cannot be read is left out of the data, too
            header = read_series([path]).header
            found[header.series_uid] = scanner(header.manufacturer, header.kernel)
    with application.database.read() as session:
        query = select(Series.series_uid, Series.kernel, Classification.header)
        for uid, kernel, header in session.execute(query.outerjoin(Classification).order_by(Series.id)):
            found[uid] = scanner((header or {}).get("manufacturer"), (header or {}).get("kernel") or kernel)
    return found


def scanner(manufacturer: str | None, kernel: str | None) -> str:
    """Return the name of a group of exams whose images look alike."""
    return f"{manufacturer or 'unknown'} / {kernel or 'unknown'}"


def labelled_exams(application: Application) -> tuple[list[Source], list[tuple[str, str]]]:
    """Return the labelled exams as sources, and those that cannot be used."""
    sources: list[Source] = []
    unusable: list[tuple[str, str]] = []
    with application.database.read() as session:
        for series_uid, label in labels.current(session).items():
            try:
                series = exams.latest(session, series_uid)
            except (NotFoundError, WorkerError) as error:
                unusable.append((series_uid, str(error)))
                continue
            paths = [path for path in exams.instance_paths(session, series, application.settings.data_dir)
                     if path.is_file()]  # fmt: skip
            if not series.patient_id:
                unusable.append((series_uid, "it names no patient, so nobody knows on which side it belongs."))
            elif not paths:
                unusable.append((series_uid, "its files are not in the spool any more."))
            else:
                # What base data say of the same patient is no hash: then the files are asked.
                patient = None if is_hashed(series.patient_id) else series.patient_id
                sources.append(Source(label, tuple(paths), False, patient, outweighs=True))
    return sources, unusable
