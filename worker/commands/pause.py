"""`reticula pause | drain | resume`: stopping work, or intake, for a while."""

import time
from typing import Annotated

import typer
from sqlalchemy import func, select

from worker import audit, console
from worker.application import Application
from worker.commands.context import application
from worker.errors import WorkerError
from worker.states import DeliveryState, State
from worker.tables import RETRACTION, Delivery, Series

_LOOK_SECONDS = 0.5
_UNDER_WAY = (State.RECEIVING, State.QUEUED, State.CLASSIFYING)


def pause() -> None:
    """Begin no new exam and no new delivery; what is under way ends, and instances still come in.

    Example: reticula pause
    """
    app = application()
    app.work_switch.stop(audit.person())
    app.journal.note(audit.person(), "application paused", "work")
    console.say("Work is paused: instances still come in and wait. 'reticula resume' goes on.")


def drain(
    wait: Annotated[float, typer.Option(help="Give up waiting after so many seconds.", min=0)] = 3600,
) -> None:
    """Take in nothing new, and wait until everything that has come is reported.

    Example: reticula drain --wait 600
    """
    app = application()
    app.intake_switch.stop(audit.person())
    app.journal.note(audit.person(), "application closed", "intake")
    deadline = time.monotonic() + wait
    said = ""
    while (left := _left(app)) is not None:
        if left != said:
            console.err.print(left, markup=False)
            said = left
        if app.work_switch.is_stopped():
            raise WorkerError(f"{left} Work is paused, so this does not end: 'reticula resume', then drain again.")
        if time.monotonic() >= deadline:
            raise WorkerError(f"{left} The intake stays closed until 'reticula resume'.")
        time.sleep(_LOOK_SECONDS)
    console.say("Nothing is left to do, and nothing new is taken in until 'reticula resume'.")


def resume() -> None:
    """Go on after `pause` or `drain`.

    Example: reticula resume
    """
    app = application()
    went_on = [switch.resume() for switch in (app.work_switch, app.intake_switch)]
    if any(went_on):
        app.journal.note(audit.person(), "application resumed", "work and intake")
    console.say("Work and intake go on." if any(went_on) else "Nothing was stopped.")


def _left(app: Application) -> str | None:
    """Say what is still to be done; None where that is nothing."""
    spooled = {each.series_uid for each in app.spool.series()}  # what lost its mark counts too
    with app.database.read() as session:
        exams = session.scalar(select(func.count()).where(Series.state.in_(_UNDER_WAY))) or 0
        unsent = session.scalar(
            select(func.count()).where(Series.state == State.CLASSIFIED, ~Series.shadow)
            if app.settings.destinations
            else select(func.count()).where(Delivery.state == DeliveryState.PENDING)
        ) or 0  # fmt: skip
        known = set(session.scalars(select(Series.series_uid)))
        unsent += session.scalar(
            select(func.count()).where(Delivery.state == DeliveryState.PENDING, Delivery.object == RETRACTION)
        ) or 0  # fmt: skip
    new = len(spooled - known)
    if not exams + unsent + new:
        return None
    return f"{exams + new} exams are to be classified, {unsent} reports to be delivered."
