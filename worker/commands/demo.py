"""`reticula demo`: the main job from end to end, in a minute, on this machine alone."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from worker import console
from worker.commands.exams import percent

if TYPE_CHECKING:
    from worker.demo import Demo, Outcome, Outgoing

_PHANTOMS = 2
_PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 0.2


def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where everything lies; replaced by each run.")] = Path(
        "reticula-demo"
    ),
    from_: Annotated[list[Path] | None, typer.Option("--from", help="Send these DICOM folders too.")] = None,
) -> None:
    """Send phantom exams through a whole installation, and check the reports that come back.

    Example: reticula demo --from /data/chest-ct
    """
    from training.phantom import write_phantoms
    from worker.demo import SEED, Demo

    for other in from_ or []:
        if not other.is_dir():
            raise typer.BadParameter(f"{other} is not a folder.", param_hint="--from")
    run = Demo(folder)
    run.prepare()
    with console.progress() as bars:
        drawing = bars.add_task("Drawing phantoms", total=_PHANTOMS)
        phantoms = run.folder / "phantoms"
        write_phantoms(phantoms, seed=SEED, exams=_PHANTOMS, progress=lambda done: bars.update(drawing, completed=done))
        series = run.outgoing(phantoms, from_ or [])
        starting = bars.add_task("Starting archive, listener, workers and sweep", total=1)
        with run.running():
            bars.update(starting, completed=1)
            last_sent = _send(run, series, bars)
            _await(run, series, bars)
            outcomes = [run.outcome(one, last_sent[one.series_uid]) for one in series]
    _print(run, outcomes)
    faults = [f"{outcome.exam['patient_id']}: {fault}" for outcome in outcomes for fault in outcome.faults]
    for fault in faults:
        console.err.print(f"Failed: {fault}.", markup=False)
    raise typer.Exit(1 if faults else 0)


def _send(run: "Demo", series: "list[Outgoing]", bars: Progress) -> dict[str, float]:
    """Send every series over an association of its own; return when the last instance of each went."""
    from pacs.sender import send

    sending = bars.add_task("Sending by C-STORE", total=sum(len(one.files) for one in series))
    listener = run.application.settings.listener
    finished: dict[str, float] = {}
    for one in series:
        send(
            one.files,
            host="127.0.0.1",
            port=listener.port,
            ae_title=listener.ae_title,
            calling_ae="DEMO",
            sent=lambda _count: bars.advance(sending),
        )
        finished[one.series_uid] = time.time()
    return finished


def _await(run: "Demo", series: "list[Outgoing]", bars: Progress) -> None:
    waiting = bars.add_task("Waiting for the reports", total=len(series))
    deadline = time.time() + _PATIENCE_SECONDS + 20 * len(series)
    done = 0
    while done < len(series) and time.time() < deadline:
        done = sum(run.done(one) for one in series)
        bars.update(waiting, completed=done)
        time.sleep(_POLL_SECONDS)


def _print(run: "Demo", outcomes: "list[Outcome]") -> None:
    table = Table("patient", "verdict", "probability", "slices", "seconds to report", "check")
    for outcome in outcomes:
        exam = outcome.exam
        classified = exam.get("slices_classified")
        said = exam.get("verdict") or f"{exam['state']} ({exam.get('reason_code')})"
        table.add_row(
            exam["patient_id"],
            said,
            percent(exam.get("certainty")),
            f"{classified} of {exam['slice_count']}" if classified else "",
            "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
            "FAILED" if outcome.faults else "ok",
        )
    console.out.print(table)
    console.say(f"Reports:  {run.archive.folder}")
    console.say(f"Pictures: {run.folder / 'pictures'}")
    console.say(f"Database: {run.application.settings.data_dir / 'reticula.sqlite3'}")
    console.say("The demo model knows phantoms only. Decision support, not a diagnosis.")
