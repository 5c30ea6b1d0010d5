"""`reticula exams`: what came in, what was said of it, and starting it again."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from pacs.codes import Language, short_name
from worker import audit, console, labels, restart, retention
from worker.commands import wording
from worker.commands.context import application
from worker.database import Database
from worker.errors import UnavailableError
from worker.listing import list_exams, show_exam
from worker.states import State
from worker.tables import Series

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The exams.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Because = Literal["quality", "safety", "worklist"]
SeriesUid = Annotated[str, typer.Argument(help="Series Instance UID.")]


def _note(database: Database, action: str, subject: str) -> None:
    """Note who looks at what. A database that can only be read, as on a full disk, must not hide the exams."""
    try:
        with database.write() as session:
            audit.record(session, action, subject, actor=audit.person())
    except UnavailableError as error:
        console.err.print(f"Not in the audit trail: {error}", markup=False)


@app.command("list")
def list_all(
    newest: Annotated[int | None, typer.Option(help="Only so many.", min=1, max=1_000_000)] = None,
    state: Annotated[str | None, typer.Option(help="Only those that are in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List all series, the newest first.

    Example: reticula exams list --newest 20
    """
    if state is not None and state not in list(State):
        raise typer.BadParameter(f"--state is {state!r}: it must be one of {', '.join(State)}.")
    app_ = application()
    database, language = app_.database, app_.settings.language
    with database.read() as session:
        rows = list_exams(session, newest=newest, state=state)
    _note(database, "exams listed", f"{len(rows)} series")
    if as_json:
        console.say_json(rows)
        return
    if not rows:
        console.say(wording.sentence("no_exams", language))
        return
    table = Table(
        *(wording.name(key, language) for key in ("received_at", "state", "verdict", "certainty", "slice_count"))
    )
    for key in ("patient_id", "series_uid"):
        table.add_column(wording.name(key, language), overflow="fold")
    for row in rows:
        why = wording.reason(row["reason_code"], language)
        classified, total = row["slices_classified"] or 0, row["slice_count"]
        table.add_row(
            row["received_at"][:16].replace("T", " "),
            wording.value(row["state"], language) + (f" ({why})" if why else ""),
            short_name(row["verdict"] or "", language),
            percent(row["certainty"]),
            wording.sentence("slices", language, classified=classified, total=total),
            row["patient_id"],
            row["series_uid"],
        )
    console.out.print(table)


@app.command()
def show(series_uid: SeriesUid, as_json: AsJson = False) -> None:
    """Show a series with its slices and deliveries.

    Example: reticula exams show 1.2.840.113619.2.55.3 --json
    """
    app_ = application()
    database, language = app_.database, app_.settings.language
    with database.read() as session:
        shown = show_exam(session, series_uid)
    _note(database, "exam shown", series_uid)
    if as_json:
        console.say_json(shown)
        return
    slices, deliveries = shown.pop("slices"), shown.pop("deliveries")
    for key, value in shown.items():
        silent = key == "probabilities" and shown["certainty"] is None
        console.say(f"{wording.name(key, language):20} {'-' if silent else _plain(key, value, language)}")
    for row in deliveries:
        error = f": {row['last_error']}" if row["last_error"] else ""
        words = {key: wording.value(row[key], language) for key in ("object", "state")}
        said = wording.sentence("delivery", language, **row | words)
        console.say(f"{wording.name('delivery', language):20} {said}{error}")
    heads = [wording.name(key, language) for key in ("instance", "position_mm", "lung", "note")]
    # Without a verdict nothing is said of classes; scripts find the probabilities in the JSON.
    committed = shown["certainty"] is not None
    classes = [short_name(each, language) for each in (shown["probabilities"] or {}) if committed]
    table = Table(*heads[:3], *classes, heads[3])
    for row in slices:
        values = [percent(value) for value in (row["probabilities"] or {}).values() if committed]
        blank = [""] * (len(classes) - len(values))
        position = "" if row["position_mm"] is None else f"{row['position_mm']:.1f}"
        table.add_row(
            str(row["instance_number"] or ""),
            position,
            "" if row["lung_fraction"] is None else f"{row['lung_fraction']:.0%}",
            *values,
            *blank,
            row["note"] or (wording.sentence("key_slice", language, rank=row["key_rank"]) if row["key_rank"] else ""),
        )
    if slices:
        console.out.print(table)


@app.command()
def retry(series_uid: SeriesUid) -> None:
    """Start a failed or rejected series again.

    Example: reticula exams retry 1.2.840.113619.2.55.3
    """
    _act(restart.retry, series_uid)


@app.command()
def resend(series_uid: SeriesUid) -> None:
    """Send the reports of a series again to every destination.

    Example: reticula exams resend 1.2.840.113619.2.55.3
    """
    _act(restart.resend, series_uid)


@app.command()
def reprocess(series_uid: SeriesUid) -> None:
    """Classify a series again with the active model; its report replaces the one before.

    Example: reticula exams reprocess 1.2.840.113619.2.55.3
    """
    app_ = application()
    series = restart.reprocess(app_.database, app_.settings.data_dir, series_uid, actor=audit.person())
    console.say(f"Series {series_uid} revision {series.revision} is {series.state}.")


@app.command()
def retract(
    series_uid: SeriesUid,
    because: Annotated[
        Because,
        typer.Option(help="quality, safety, or worklist: the images stand under a wrong entry of the worklist."),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take back the result of a series: a rejection note (IHE IOCM) goes to every PACS that has something of it.

    Example: reticula exams retract 1.2.840.113619.2.55.3 --because safety --yes
    """
    if not yes:
        typer.confirm(f"Take back the result of series {series_uid}?", abort=True, err=True)
    from pacs.report.rejection import Grounds
    from worker import retraction

    grounds = {"quality": Grounds.QUALITY, "safety": Grounds.SAFETY, "worklist": Grounds.WRONG_WORKLIST_ENTRY}
    told = retraction.retract(application().database, series_uid, grounds[because], actor=audit.person())
    console.say(f"The result of series {series_uid} is taken back. " + _told(told))


@app.command()
def forget(
    series_uid: SeriesUid,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase an exam: received files, reports and rows. What a PACS has taken stays there.

    Example: reticula exams forget 1.2.840.113619.2.55.3 --yes
    """
    if not yes:
        typer.confirm(f"Erase all that is kept of series {series_uid}?", abort=True, err=True)
    settings = application().settings
    count = retention.forget(application().database, settings.data_dir, series_uid, actor=audit.person())
    console.say(f"Series {series_uid} is erased, with {count} files. What a PACS has taken stays there.")


@app.command()
def label(
    series_uid: Annotated[str | None, typer.Argument(help="Series Instance UID.")] = None,
    name: Annotated[str | None, typer.Argument(help="UIP, NSIP, normal or other.", metavar="LABEL")] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Take labels from a table: columns series_uid, label.")
    ] = None,
) -> None:
    """Say what a series shows; retraining learns from it. The latest label counts.

    Example: reticula exams label 1.2.840.113619.2.55.3 UIP
    """
    if (table is None) == (series_uid is None) or (series_uid is None) != (name is None):
        raise typer.BadParameter("Give a series and its label, or a table with --csv.")
    given = labels.read_table(table) if table is not None else [labels.GivenLabel(series_uid or "", name or "")]
    count = labels.store(application().database, given, author=audit.person())
    console.say(f"{count} {'label is' if count == 1 else 'labels are'} stored.")


def _told(destinations: list[str]) -> str:
    if not destinations:
        return "Nothing of it had been sent."
    return f"A rejection note goes to {', '.join(destinations)}: see 'reticula exams show'."


def percent(value: float | None) -> str:
    """Return a probability in percent, which never reads 100 or 0; nothing where there is none."""
    from pacs.report.percentages import percentage

    return "" if value is None else f"{percentage(value, 0):.0f}%"


def _act(action: Callable[..., Series], series_uid: str) -> None:
    database: Database = application().database
    series = action(database, series_uid, actor=audit.person())
    console.say(f"Series {series_uid} revision {series.revision} is {series.state}.")


def _plain(key: str, value: Any, language: Language) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{short_name(each, language)} {percent(part)}" for each, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if isinstance(value, float):
        return percent(value) if key == "certainty" else f"{value:.2f}"
    if key in ("reason_code", "completeness"):
        return wording.reason(value, language)
    return short_name(value, language) if key == "verdict" else wording.value(str(value), language)
