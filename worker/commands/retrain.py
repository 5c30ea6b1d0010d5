"""`reticula retrain`: a better model from what radiologists said, if it is better."""

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from sqlalchemy.orm import Session

from models.errors import ModelError
from training.errors import TrainingError
from worker import audit, console, retraining, training_runs
from worker.commands import learning
from worker.commands.context import application
from worker.commands.learning import ConfirmLabels, FineTuneOption, chosen
from worker.errors import LeaseLostError, UnavailableError, WorkerError
from worker.label_check import LabelCheck
from worker.queues import TRAINING
from worker.retraining import Options
from worker.tables import ModelVersion
from worker.training_runs import HeldRun, RunState

if TYPE_CHECKING:
    from training.dataset import LabelledSlices
    from training.promotion.decision import Decision
    from training.promotion.groups import Plan
    from training.recipe import Observer

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 2.0


def retrain(
    dataset: Annotated[Path | None, typer.Option(help="Base data (default: the setting training.dataset).")] = None,
    fine_tune: FineTuneOption = "last",
    epochs: Annotated[int, typer.Option(help="Times through the data, at most.", min=1)] = 30,
    confirm_labels: ConfirmLabels = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be used, and whether a candidate could be promoted.")
    ] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Let a worker do it; see 'reticula models list'.")] = False,
    run: Annotated[int | None, typer.Option(help="Do what was queued under this number.", hidden=True)] = None,
    owner: Annotated[str, typer.Option(help="In whose name.", hidden=True)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a candidate from the active model, with base data and labelled exams.

    It is promoted by itself only where held-out patients show that it is better and harms nobody. Else it is a
    challenger: it classifies in shadow, and a person may promote it with 'reticula models promote --because'.

    Example: reticula retrain --dataset /srv/base --dry-run
    """
    options = Options(
        dataset=dataset.absolute() if dataset is not None else None,
        fine_tune=chosen(fine_tune, ("last", "all"), "--fine-tune"),
        epochs=epochs,
        confirm_labels=(confirm_labels or "").strip() or None,
    )
    if queue and (dry_run or as_json):
        raise typer.BadParameter("Leave out --queue: a queued run tells of itself in 'reticula models list'.")
    if queue:
        _queue(options)
        return
    learning.need_torch()
    if run is not None:
        _queued_run(run, owner or training_runs.new_owner())
        return
    material = retraining.gather(application(), options)
    found = learning.looked_at(material.model)
    if not dry_run:
        retraining.checked(application(), material.model, options.confirm_labels)
    with learning.shown_run() as (bars, observer):
        reading = bars.add_task("Reading", total=len(material.base) + len(material.labelled))
        data = retraining.read(
            material,
            lambda sentence: console.err.print(sentence, markup=False),
            lambda done: bars.update(reading, completed=done),
        )
        if dry_run:
            from training.retraining import summary
            from training.sides import Sides

            question = retraining.ask(application(), material, data)
            sides = Sides.of(retraining.judged_with(material, question))
            _show_plan(summary(data, sides), material, found, question.plan, as_json=as_json)
            return
        outcome = _run_here(material, data, options, observer)
    if as_json:
        console.say_json({"model": f"{outcome.model.name} {outcome.model.version}", **outcome.decision.as_json()})
        return
    console.say(f"Model {outcome.model.name} {outcome.model.version} is imported. {outcome.decision.sentence}")


def _queue(options: Options) -> None:
    material = retraining.gather(application(), options)  # what cannot work is said now
    learning.looked_at(material.model)
    retraining.checked(application(), material.model, options.confirm_labels)
    number = training_runs.request(application().database, options.as_json(), actor=audit.person())
    try:
        application().broker.wake(TRAINING)
    except UnavailableError as error:
        console.err.print(f"{error} The sweep wakes a worker later.", markup=False)
    console.say(f"Retraining {number} is queued; 'reticula models list' shows how far it is.")


def _run_here(
    material: retraining.Material, data: "LabelledSlices", options: Options, observer: "Observer"
) -> retraining.Outcome:
    """Do a run that nobody queued; what comes of it is stored as that of a queued one."""
    database, owner = application().database, training_runs.new_owner()
    number = training_runs.request(database, options.as_json(), actor=audit.person(), owner=owner)
    held = training_runs.claim(database, number, owner)
    if held is None:
        raise WorkerError(f"Retraining {number} was taken by a worker: see 'reticula models list'.")
    settled = threading.Event()
    try:
        return _do(held, material, data, options, observer, learning.command_line(), settled)
    except KeyboardInterrupt:
        with suppress(LeaseLostError):  # it is settled already
            _fail(held, "Stopped by whoever started it.", settled)
        raise


def _do(
    held: HeldRun,
    material: retraining.Material,
    data: "LabelledSlices",
    options: Options,
    observer: "Observer",
    command: str,
    settled: threading.Event,
) -> retraining.Outcome:
    """Do a run that this process holds; `settled` is set when what came of it is about to be stored."""
    threading.Thread(target=_keep, args=(held, settled), daemon=True).start()

    def settle(session: Session, decision: "Decision", model: ModelVersion) -> None:
        settled.set()  # before the lease ends with the run: nobody else can have taken it
        training_runs.finish(session, held, RunState.DONE, decision.sentence, decision.as_json(), model_id=model.id)

    try:
        return retraining.run(
            application(), material, data, options, observer,
            name=f"run-{held.id}", actor=held.requested_by, command=command, also=settle,
        )  # fmt: skip
    except UnavailableError:
        raise  # the run is taken up again
    except (WorkerError, TrainingError, ModelError, OSError) as error:
        _fail(held, f"Failed: {error}", settled)
        raise


def _fail(held: HeldRun, why: str, settled: threading.Event) -> None:
    settled.set()  # it ends with its lease, which must not be taken for a loss
    with application().database.write() as session:
        training_runs.finish(session, held, RunState.FAILED, why)
    retraining.clear(application(), f"run-{held.id}")


def _queued_run(number: int, owner: str) -> None:
    """Do a queued run to its end, and store what came of it."""
    app = application()
    held = training_runs.claim(app.database, number, owner)
    if held is None:
        console.err.print(f"Retraining {number} is in other hands.")
        return
    try:
        options = Options.from_json(held.options)
        material = retraining.gather(app, options)
        retraining.checked(app, material.model, options.confirm_labels)
        left_out: list[str] = []
        data = retraining.read(material, left_out.append)
    except UnavailableError:
        raise  # the run is taken up again
    except (WorkerError, TrainingError, ModelError, OSError) as error:
        _fail(held, f"Failed: {error}", threading.Event())
        raise
    logger.info("Retraining %d: %d slices, %d files or exams left out.", number, len(data), len(left_out))
    _do(held, material, data, options, _observer(held), f"reticula retrain --run {number}", threading.Event())


def _keep(held: HeldRun, settled: threading.Event) -> None:
    """Keep the run until it is settled; where another process took it before that, end at once."""
    while not settled.wait(training_runs.LEASE.total_seconds() / 4):
        try:
            training_runs.keep(application().database, held)
        except UnavailableError as error:
            logger.warning("%s The training goes on.", error)
        except LeaseLostError:
            if not settled.is_set():
                os._exit(1)


def _observer(held: HeldRun) -> "Observer":
    """Tell SQL how far the run is, every few seconds."""
    from training.fitting import Epoch, Progress
    from training.recipe import Observer

    database, last, stage = application().database, [0.0], ["reading"]

    def tell(done: int | None, total: int | None, *, now: bool = False) -> None:
        if now or time.monotonic() - last[0] > _PROGRESS_SECONDS:
            with suppress(UnavailableError):  # it may be back by the next time
                training_runs.progress(database, held, stage[0], done, total)
            last[0] = time.monotonic()

    def on_stage(name: str) -> None:
        stage[0] = name
        tell(None, None, now=True)

    def on_epoch(epoch: Epoch) -> None:
        stage[0] = f"{stage[0].partition(', ')[0]}, epoch {epoch.number} done"
        tell(None, None)

    return Observer(on_count=tell, progress=Progress(on_batch=tell, on_epoch=on_epoch), on_stage=on_stage)


def _show_plan(
    plan: dict[str, Any], material: retraining.Material, labels: LabelCheck, question: "Plan", *, as_json: bool
) -> None:
    model = f"{material.model.name} {material.model.version}"
    if as_json:
        content = {"model": model, "sides": plan, "labelled": len(material.labelled),
                   "unusable": [{"series_uid": uid, "reason": why} for uid, why in material.unusable],
                   "ends_as": "challenger" if question.alpha is None else "promoted where shown",
                   "held_out": {"patients": question.patients, **question.counts}, "lacking": dict(question.lacking),
                   "group": question.group, "attempt": question.attempt, "error": question.alpha,
                   "suspect_labels": [vars(finding) for finding in labels.findings],
                   "labels_must_be_confirmed": labels.too_many}  # fmt: skip
        console.say_json(content)
        return
    table = Table("side", "class", "patients", "slices")
    for side, kinds in plan.items():
        for kind, count in kinds.items():
            table.add_row(side, kind, str(count["patients"]), str(count["slices"]))
    console.out.print(table)
    if labels.labelled:
        must = " They must be confirmed with --confirm-labels, or mended." if labels.too_many else ""
        console.say(f"{labels.summary()}{must}")
    pinned = application().settings.model
    if pinned is not None:
        console.say(f"The setting 'model' says {pinned}: no candidate is promoted by itself.")
    console.say(question.sentence())
    console.say(f"A candidate would start from {model}; {len(material.labelled)} labelled exams. Nothing was trained.")
