"""`reticula models`: the bundles that classify."""

from contextlib import ExitStack
from typing import Annotated, Any

import typer
from rich.progress import Progress as Bars
from rich.progress import TaskID
from rich.table import Table

from models.bundle import open_bundle
from worker import audit, challengers, console, training_runs
from worker.commands import learning
from worker.commands.context import application
from worker.commands.guard import guard
from worker.commands.model_comparison import compare
from worker.commands.quantise import quantise
from worker.registry import Questions, as_json
from worker.tables import TrainingRun

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The models.")
# A retraining that has made no model yet, in the list of models.
_NO_MODEL = dict.fromkeys(
    ("name", "version", "architecture", "bundle_sha256", "parent", "path", "imported_at", "imported_by", "metrics")
) | {"active": False, "challenger": False}
Despite = Annotated[
    str, typer.Option(help="Why it shall classify although it named what it must not; every object will say so.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(as_json_: AsJson = False) -> None:
    """List the imported models, and retrainings that are under way or failed.

    Example: reticula models list
    """
    registry = application().registry
    versions = registry.all()
    with application().database.read() as session:
        runs = training_runs.listed(session)
        challenging = {version.id for version in challengers.challengers(session, registry.active(session))}
    by_model = {run.model_id: run for run in runs if run.model_id is not None}
    without = [run for run in runs if run.model_id is None]
    if as_json_:
        rows = [
            {**as_json(version), "challenger": version.id in challenging, "training": _run(by_model.get(version.id))}
            for version in versions
        ]
        console.say_json([*({**_NO_MODEL, "training": _run(run)} for run in without), *rows])
        return
    table = Table("name", "version", "architecture", "state", "parent", "imported", "by", "sha256", "remark")
    for run in without:
        share = f" {run.done}/{run.total}" if run.total else ""
        remark = run.outcome or f"{run.stage}{share}"
        asked = f"{run.requested_at:%Y-%m-%d %H:%M}"
        table.add_row("", f"retraining {run.id}", "", run.state, "", asked, run.requested_by, "", remark)
    for version in versions:
        made_by = by_model.get(version.id)
        table.add_row(
            version.name,
            version.version,
            version.architecture,
            "active" if version.active else "challenger" if version.id in challenging else "",
            version.parent.version if version.parent is not None else "",
            f"{version.imported_at:%Y-%m-%d %H:%M}",
            version.imported_by,
            version.bundle_sha256[:12],
            made_by.outcome if made_by is not None else "",
        )
    console.out.print(table)


def _run(run: TrainingRun | None) -> dict[str, Any] | None:
    return None if run is None else training_runs.as_json(run)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name, 'name version', or the start of the checksum.")],
    as_json_: AsJson = False,
) -> None:
    """Show a model: its card, or everything with --json.

    Example: reticula models show demo
    """
    registry = application().registry
    with application().database.read() as session:
        version = registry.find(session, name)
        carried = challengers.safety(session, version)
        run = training_runs.of_model(session, version.id)
    if as_json_:
        console.say_json({**as_json(version), "safety": carried, "training": _run(run)})
        return
    console.say((registry.folder(version) / "card.md").read_text(encoding="utf-8"))
    if carried is not None:
        console.say(carried)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="Name, 'name version', or the start of the checksum.")],
    despite: Despite = "",
    because: Annotated[
        str | None, typer.Option(help="Why; needed for a candidate that no retraining has shown to be safe.")
    ] = None,
) -> None:
    """Make an imported model the active one.

    Example: reticula models promote 'uip-nsip 2'
    """
    app_ = application()
    version = challengers.promote(
        app_.database, app_.registry, name, actor=audit.person(), because=because, despite=despite
    )
    console.say(f"Model {version.name} {version.version} is active.{_pinned()}")


@app.command()
def rollback() -> None:
    """Go back to the model that was active before the last promotion.

    Example: reticula models rollback
    """
    version = application().registry.rollback(actor=audit.person())
    console.say(f"Model {version.name} {version.version} is active again.{_pinned()}")


def _pinned() -> str:
    pinned = application().settings.model
    return "" if pinned is None else f" But the setting 'model' says {pinned}, and that one classifies."


app.command()(quantise)
app.command()(guard)
app.command("compare")(compare)


@app.command("import")
def import_model(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or 'demo' for the one that comes along.")],
    despite: Despite = "",
) -> None:
    """Import a bundle, and ask it what it says of what it must not name. The first one becomes active.

    Example: reticula models import /srv/bundles/uip-nsip-2
    """
    app_, training = application(), application().settings.training
    with ExitStack() as stack:
        shown: list[tuple[Bars, TaskID]] = []

        def on_count(done: int, total: int) -> None:  # most bundles hold their answers, and nothing is to be seen
            if not shown:
                bars = stack.enter_context(console.progress())
                shown.append((bars, bars.add_task("Unknowns", total=total)))
            shown[0][0].update(shown[0][1], completed=done)

        version = app_.registry.import_bundle(
            bundle, actor=audit.person(), despite=despite,
            questions=Questions(training.battery, training.unknowns, on_count),
        )  # fmt: skip
    state = "active" if version.active else "not active"
    console.say(f"Model {version.name} {version.version} is imported ({state}).")
    for sentence in learning.what_it_says(open_bundle(app_.registry.folder(version)), version.battery):
        console.say(sentence)
