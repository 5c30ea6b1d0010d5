"""`reticula retrain`: a better model from what radiologists said, if it is better."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from worker import audit, console, retraining, training_runs
from worker.commands import learning
from worker.commands.context import application
from worker.commands.learning import FineTuneOption, chosen
from worker.errors import UnavailableError, WorkerError
from worker.queues import TRAINING
from worker.retraining import Options
from worker.training_runs import HeldRun, RunState

if TYPE_CHECKING:
    from training.recipe import Observer

_PROGRESS_SECONDS = 2.0


def retrain(
    dataset: Annotated[Path | None, typer.Option(help="Base data (default: the setting training.dataset).")] = None,
    fine_tune: FineTuneOption = "last",
    epochs: Annotated[int, typer.Option(help="Times through the data, at most.", min=1)] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be used.")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Let a worker do it; see 'reticula models list'.")] = False,
    run: Annotated[int | None, typer.Option(help="Do what was queued under this number.", hidden=True)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a candidate from the active model, with base data and labelled exams, and promote it if it is better.

    Example: reticula retrain --dataset /srv/base --dry-run
    """
    options = Options(
        dataset=dataset.absolute() if dataset is not None else None,
        fine_tune=chosen(fine_tune, ("last", "all"), "--fine-tune"),
        epochs=epochs,
    )
    if queue:
        _queue(options)
        return
    learning.need_torch()
    if run is not None:
        _queued_run(run)
        return
    material = retraining.gather(application(), options)
    with learning.shown_run() as (bars, observer):
        reading = bars.add_task("Reading", total=len(material.base) + len(material.labelled))
        data = retraining.read(
            material,
            lambda sentence: console.err.print(sentence, markup=False),
            lambda done: bars.update(reading, completed=done),
        )
        if dry_run:
            from training.retraining import Sides, summary

            _show_plan(summary(data, Sides.of(material.bundle)), material, as_json=as_json)
            return
        outcome = retraining.run(
            application(), material, data, options, observer,
            name=retraining.run_name(), actor=audit.person(), command=learning.command_line(),
        )  # fmt: skip
    if as_json:
        console.say_json({"model": f"{outcome.model.name} {outcome.model.version}", **outcome.decision.as_json()})
        return
    console.say(f"Model {outcome.model.name} {outcome.model.version} is imported. {outcome.decision.sentence}")


def _queue(options: Options) -> None:
    retraining.gather(application(), options)  # what cannot work is said now
    number = training_runs.request(application().database, options.as_json(), actor=audit.person())
    try:
        application().broker.wake(TRAINING)
    except UnavailableError as error:
        console.err.print(f"{error} The sweep wakes a worker later.", markup=False)
    console.say(f"Retraining {number} is queued; 'reticula models list' shows how far it is.")


def _queued_run(number: int) -> None:
    """Do a queued run to its end, and store what came of it."""
    app = application()
    held = training_runs.claim(app.database, number)
    if held is None:
        raise WorkerError(f"Retraining {number} does not wait to be done.")
    try:
        options = Options.from_json(held.options)
        material = retraining.gather(app, options)
        data = retraining.read(material, lambda sentence: console.err.print(sentence, markup=False))
        outcome = retraining.run(
            app, material, data, options, _observer(held),
            name=f"run-{number}", actor=held.requested_by, command=f"reticula retrain --run {number}",
        )  # fmt: skip
    except UnavailableError:
        raise  # the lease runs out, and the run is taken up again
    except Exception as error:
        training_runs.finish(app.database, held, RunState.FAILED, f"Failed: {error}")
        raise
    decision = outcome.decision
    training_runs.finish(
        app.database, held, RunState.DONE, decision.sentence, decision.as_json(), model_id=outcome.model.id
    )


def _observer(held: HeldRun) -> "Observer":
    """Tell SQL how far the run is, every few seconds; that keeps the lease."""
    from training.fitting import Epoch, Progress
    from training.recipe import Observer

    database, last, stage = application().database, [0.0], ["reading"]

    def tell(done: int | None, total: int | None, *, now: bool = False) -> None:
        if now or time.monotonic() - last[0] > _PROGRESS_SECONDS:
            training_runs.progress(database, held, stage[0], done, total)
            last[0] = time.monotonic()

    def on_stage(name: str) -> None:
        stage[0] = name
        tell(None, None, now=True)

    def on_epoch(epoch: Epoch) -> None:
        stage[0] = f"{stage[0].partition(', ')[0]}, epoch {epoch.number} done"
        tell(None, None)

    return Observer(on_feature=tell, progress=Progress(on_batch=tell, on_epoch=on_epoch), on_stage=on_stage)


def _show_plan(plan: dict[str, Any], material: retraining.Material, *, as_json: bool) -> None:
    model = f"{material.model.name} {material.model.version}"
    if as_json:
        content = {"model": model, "sides": plan, "labelled": len(material.labelled),
                   "unusable": [{"series_uid": uid, "reason": why} for uid, why in material.unusable]}  # fmt: skip
        console.say_json(content)
        return
    table = Table("side", "class", "patients", "slices")
    for side, kinds in plan.items():
        for kind, count in kinds.items():
            table.add_row(side, kind, str(count["patients"]), str(count["slices"]))
    console.out.print(table)
    console.say(f"A candidate would start from {model}; {len(material.labelled)} labelled exams. Nothing was trained.")
