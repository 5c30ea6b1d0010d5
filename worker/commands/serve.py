"""The long-running commands: `listen`, `serve`, `work`, `sweep`, and `up`, which runs them all."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from worker import audit, processes
from worker.application import Application
from worker.commands.context import application
from worker.errors import WorkerError
from worker.liveness import Watch
from worker.processes import Child, Stop, Supervisor, say_ready
from worker.queues import EXAM_QUEUES, QUEUES, TRAINING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacs.listener import Listener
    from worker.web.server import HttpServer

SWEEP_SECONDS = 0.5
GRACE_SECONDS = 20.0
_NOT_FOR_PEOPLE = "--part, --descriptor and --counts are for processes that 'reticula listen' starts: leave them out."


def listen(
    part: Annotated[int | None, typer.Option(hidden=True, min=0)] = None,
    descriptor: Annotated[int | None, typer.Option(hidden=True)] = None,
    counts: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Take in instances by C-STORE. Needs neither database nor broker.

    Example: reticula --config /etc/reticula/reticula.toml listen
    """
    app = application()
    if part is not None or descriptor is not None or counts is not None:
        _listen_as_part(app, part, descriptor, counts)
    elif app.settings.listener.processes == 1:
        app.prepare_listeners()
        _take_in(app, "listener", app.listener)
    else:
        _listen_together(app)


def serve() -> None:
    """Take in instances by STOW-RS over HTTP. Needs neither database nor broker.

    Example: reticula --config /etc/reticula/reticula.toml serve
    """
    app = application()
    _take_in(app, "HTTP server", app.http_server)


def work(
    queues: Annotated[str, typer.Option(help="Queues to serve, separated by commas.")] = ",".join(EXAM_QUEUES),
) -> None:
    """Classify exams and deliver reports; with the queue 'training', retrain models too.

    Example: reticula work --queues classify
    """
    names = _queues(queues)
    from worker.tasks import run_worker

    app = application()
    with _noted(app, f"worker for {queues}"):
        code = run_worker(app, names, say_ready)
    raise typer.Exit(code)


def sweep() -> None:
    """Assemble series, wake what waits, and take back what dead workers hold.

    Example: reticula sweep
    """
    app = application()
    stop = Stop()
    app.spool.prepare()
    sweeper = app.sweep()
    with _noted(app, "sweep"):
        say_ready()
        while not stop.wait(SWEEP_SECONDS):
            sweeper.tick()


def up(
    queues: Annotated[str | None, typer.Option(help="Queues to serve: all that this installation can.")] = None,
) -> None:
    """Run listener, workers, sweep and, where it is enabled, the HTTP server on this machine, in the foreground.

    Example: reticula up
    """
    served = _served() if queues is None else _queues(queues)
    app = application()
    stop = Stop()
    app.spool.prepare()
    app.broker.prepare()
    app.database.upgrade()
    app.database.dispose()
    children = [
        Child("listener", processes.command("listen")),
        *([Child("HTTP server", processes.command("serve"))] if app.settings.http.enabled else []),
        Child("sweep", processes.command("sweep")),
        *(
            Child(
                f"worker for {queue}",
                processes.command("work", "--queues", queue),
                watch=Watch(app, [queue], app.settings.worker.stuck_seconds),
            )
            for queue in served
        ),
    ]
    Supervisor(children).run(stop, say_ready)


def _listen_together(app: Application) -> None:
    """Let several processes take in what comes to one port."""
    from pacs.counts import SharedCounts
    from pacs.listener import Listener

    stop = Stop()
    configured = app.settings.listener
    app.spool.prepare()
    opened = Listener.open_port(configured.host, configured.port)
    app.prepare_listeners()
    counts = SharedCounts.allocate(configured.processes, configured.max_associations)
    inherits = opened.fileno(), counts
    children = [
        Child(
            f"listener {part}",
            processes.command("listen", "--part", str(part), "--descriptor", str(inherits[0]), "--counts", str(counts)),
            inherits=inherits,
            # What it had counted would keep others out until it is there again.
            ended=partial(app.shared_counts, counts, part),
        )
        for part in range(configured.processes)
    ]
    with opened:
        Supervisor(children, close=opened.close).run(stop, say_ready)


def _listen_as_part(app: Application, part: int | None, descriptor: int | None, counts: int | None) -> None:
    """Be one of the processes that `_listen_together` starts."""
    if part is None or descriptor is None or counts is None:
        raise WorkerError(_NOT_FOR_PEOPLE)
    try:
        inherited, shared = socket.socket(fileno=descriptor), app.shared_counts(counts, part)
    except (OSError, ValueError) as error:
        raise WorkerError(_NOT_FOR_PEOPLE) from error
    _take_in(app, f"listener {part}", lambda: app.listener(part, inherited, shared))


def _take_in(app: Application, name: str, make: "Callable[[], Listener | HttpServer]") -> None:
    """Serve until the process is told to stop."""
    stop = Stop()
    app.spool.prepare()
    server = make()
    server.start()
    with _noted(app, name):
        say_ready()
        stop.wait()
        server.stop(GRACE_SECONDS)


@contextmanager
def _noted(app: Application, name: str) -> Iterator[None]:
    """Note in the audit trail that a process starts, and that it stops in good order."""
    app.journal.application(audit.person(), "started", name)
    yield
    app.journal.application(audit.person(), "stopped", name)


def _queues(named: str) -> list[str]:
    names = [name.strip() for name in named.split(",") if name.strip()]
    if not names or not set(names) <= set(QUEUES):
        raise typer.BadParameter(f"Choose among {', '.join(QUEUES)}.", param_hint="--queues")
    return names


def _served() -> tuple[str, ...]:
    """The queues that this installation can serve: training needs torch."""
    return QUEUES if find_spec("torch") is not None else tuple(queue for queue in QUEUES if queue != TRAINING)
