"""`reticula pull`: exams of years past, or of an archive that cannot send by itself."""

import re
from datetime import date
from typing import Annotated, Any

import typer
from rich.table import Table

from pacs.intake import Intake, Sender
from pacs.retrieval import Receiver, StudyQuery
from worker import audit, console
from worker.commands.context import application
from worker.errors import WorkerError
from worker.pull import Planned, Pull

_DAY = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


def pull(
    source: Annotated[str, typer.Argument(help="One of the [[sources]] of the settings.")],
    since: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")] = "",
    until: Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD.")] = "",
    modality: Annotated[str, typer.Option(help="Modality that the study has.")] = "CT",
    description: Annotated[str, typer.Option(help="Study description; * and ? are wild.")] = "",
    patient: Annotated[str, typer.Option(help="Patient number.")] = "",
    accession: Annotated[str, typer.Option(help="Accession number.")] = "",
    rate: Annotated[float, typer.Option(help="Instances a second at most.", min=0.1)] = 20,
    ahead: Annotated[int, typer.Option(help="Wait while so many exams are to be classified.", min=1)] = 20,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would take, and take nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask an archive for studies, show what is taken, and fetch it. Asked again it goes on where it stopped.

    Example: reticula pull archive --from 2024-01-01 --to 2024-12-31 --description '*TORAX*' --dry-run
    """
    app = application()
    query = StudyQuery(
        dates=_range(since, until), modality=modality, description=description, patient_id=patient,
        accession_number=accession,
    )  # fmt: skip
    if not query.filters().keys() - {"ModalitiesInStudy"}:
        raise typer.BadParameter("Name days, a description, a patient or an accession number: not the whole archive.")
    app.spool.prepare()
    work = Pull(app.source(source), app.database, app.spool, ahead=ahead)
    planned = list(work.plan(query))
    taken = [each for each in planned if each.reason is None]
    if not as_json:
        _show(planned)
    problems: dict[str, str] = {}
    if not dry_run:
        reason = app.spool.objection()
        if reason is not None:
            raise WorkerError(f"Nothing is taken in: {reason}.")
        app.journal.note(audit.person(), "pull asked", source)
        listener = app.settings.listener
        intake = Intake(app.spool, listener.max_instance_mb << 20, app.journal.witness)
        receiver = Receiver(intake, Sender(source, source), listener.ae_title, rate)
        with console.progress() as bars:
            task = bars.add_task("Series", total=len(taken))
            for each in taken:
                reason = app.spool.objection()
                if reason is not None:
                    raise WorkerError(f"Nothing more is taken in: {reason}. Run it again to go on.")
                fetched = work.fetch(each, receiver, lambda count: bars.update(task, description=f"{count} exams wait"))
                bars.update(task, advance=1, description="Series")
                if fetched.error is not None:
                    problems[each.series.series_uid] = fetched.error
    if as_json:
        console.say_json([_row(each, problems) for each in planned])
    if problems:
        for series_uid, error in problems.items():
            console.err.print(f"Series {series_uid}: {error}", markup=False)
        raise WorkerError(f"{len(problems)} of {len(taken)} series did not come whole: run it again to go on.")


def _show(planned: list[Planned]) -> None:
    table = Table("day", "patient", "study", "series", "instances", "taken")
    for each in planned:
        count = "?" if each.series.instances is None else str(each.series.instances)
        table.add_row(
            each.study.study_date, each.study.patient_id, each.study.description, each.series.description, count,
            "yes" if each.reason is None else f"no: {each.reason}",
        )  # fmt: skip
    console.out.print(table)
    console.say(f"{sum(each.reason is None for each in planned)} of {len(planned)} series are taken.")


def _row(each: Planned, problems: dict[str, str]) -> dict[str, Any]:
    return {
        "study_uid": each.study.study_uid,
        "series_uid": each.series.series_uid,
        "patient_id": each.study.patient_id or None,
        "accession_number": each.study.accession_number or None,
        "study_date": each.study.study_date or None,
        "description": each.study.description or None,
        "series_description": each.series.description or None,
        "modality": each.series.modality or None,
        "instances": each.series.instances,
        "taken": each.reason is None,
        "reason": each.reason,
        "error": problems.get(each.series.series_uid),
    }


def _range(since: str, until: str) -> str:
    """Return days as DICOM writes them. Raises BadParameter."""
    days = [_day(value) for value in (since, until)]
    return "-".join(days) if any(days) else ""


def _day(value: str) -> str:
    if not value:
        return ""
    match = _DAY.fullmatch(value)
    try:
        return date(*map(int, match.groups())).strftime("%Y%m%d") if match else _bad(value)
    except ValueError:
        return _bad(value)


def _bad(value: str) -> str:
    raise typer.BadParameter(f"{value} is no day: write YYYY-MM-DD.")
