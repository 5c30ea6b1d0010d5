"""`reticula worklist`: the reports that the PACS holds, the most urgent first."""

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from worker import audit, console
from worker.commands import wording
from worker.commands.context import application
from worker.errors import WorkerError


def worklist(
    source: Annotated[str, typer.Argument(help="One of the [[sources]]; not needed where there is one.")] = "",
    days: Annotated[
        int, typer.Option(help="Only studies whose Study Date lies so many days back or less.", min=1)
    ] = 30,
    html: Annotated[Path | None, typer.Option(help="Write the list to this HTML file.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what the PACS has been told: UIP first, then NSIP, then indeterminate, of each the oldest first.

    Only studies of the last 30 days stand in it, by their Study Date; --days changes that. New is a report that nobody
    has verified in the PACS. Where the PACS did not hand over everything, the list says so and the exit code is 1.

    Example: reticula worklist pacs --days 7 --html /srv/www/worklist.html
    """
    from pacs.codes import short_name
    from worker.summary.wording import WORDING, day, percent
    from worker.worklist import gather, incomplete_sentence, reason, unread_mark, window_sentence, write_page

    app = application()
    sources = app.settings.sources
    if not source and len(sources) != 1:
        raise WorkerError("Name one of the [[sources]] of the settings: there is not exactly one.")
    today = date.today()  # noqa: DTZ011 – studies have the date of the place
    window = today - timedelta(days=days), today + timedelta(days=1)  # a modality may be ahead of us
    dates = f"{window[0]:%Y%m%d}-{window[1]:%Y%m%d}"
    language = app.settings.language
    found = gather(app.source(source or sources[0].name), dates, app.settings.worklist.viewer)
    app.journal.note(audit.person(), "exams listed", "worklist")
    if html is not None:
        write_page(html, found, language, window)
    if as_json:
        console.say_json(found.as_json())
    elif html is None:
        keys = (
            "unread",
            "verdict",
            "probability",
            "reason_code",
            "patient_id",
            "number",
            "ct_of",
            "reported_at",
            "study_uid",
        )
        table = Table(*(wording.name(key, language) for key in keys))
        for entry in found.entries:
            report = entry.report
            reported = "" if report.reported_at is None else f"{report.reported_at:{WORDING[language].date}}"
            certainty = "" if report.certainty is None else percent(report.certainty, language)
            table.add_row(
                unread_mark(entry, language),
                short_name(entry.verdict, language),
                certainty,
                reason(entry, language),
                report.patient_name,
                report.patient_id,
                day(report.study_date, language),
                reported,
                entry.link or report.study_uid,
            )
        console.out.print(table)
        console.say(window_sentence(window, language))
    for series in found.left_out:
        uid, why = series.series_uid or series.study_uid, series.why
        console.err.print(wording.sentence("left_out", language, uid=uid, why=why), markup=False)
    if found.left_out:
        console.err.print(incomplete_sentence(len(found.left_out), language), markup=False)
        raise typer.Exit(1)
