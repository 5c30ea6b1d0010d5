"""`reticula check`: is everything there that an exam needs? One line each."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import typer

from models.errors import ModelError
from models.verdict import silent_about_all
from pacs.errors import PacsError
from pacs.tls import client_context, server_context
from worker import console, retention
from worker.application import Application
from worker.commands.context import application
from worker.connections import tls_identity
from worker.errors import UnavailableError, WorkerError
from worker.registry import may_serve
from worker.secrets import check_secrets

if TYPE_CHECKING:
    from pacs.destinations import Destination

_LEAST_FREE_BYTES = 2 * 1024**3


def check() -> None:
    """Check settings, database, broker, model, disk and every destination; fail if any of them fails.

    Example: reticula --config /etc/reticula/reticula.toml check
    """
    app = application()
    console.say(f"ok    settings: data in {app.settings.data_dir}")
    failed = False
    for name, examine in _checks(app):
        try:
            console.say(f"ok    {name}: {examine()}")
        except (WorkerError, PacsError, ModelError, OSError) as error:
            failed = True
            console.say(f"FAIL  {name}: {error}")
    raise typer.Exit(1 if failed else 0)


def _checks(app: Application) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "secrets", lambda: check_secrets(app.settings)
    yield "keys and certificates", lambda: _keys(app)
    yield "rules", app.rules.check
    yield "disk", lambda: _disk(app)
    yield "database", lambda: _database(app)
    yield "work", lambda: _work(app)
    yield "broker", lambda: _broker(app)
    yield "model", lambda: _model(app)
    if not app.settings.destinations:
        yield "destinations", _no_destination
    for name, destination in app.destinations.items():
        yield f"destination {name}", partial(_destination, destination)
    for configured in app.settings.sources:
        yield f"source {configured.name}", partial(_source, app, configured.name)


def _keys(app: Application) -> str:
    """What listener, privacy and audit are set to is there and can be used."""
    listener, audit = tls_identity(app.settings.listener.tls), tls_identity(app.settings.audit.tls)
    if listener is not None:
        server_context(listener)
    if audit is not None:
        client_context(audit)
    http, serves = tls_identity(app.settings.http.tls), ""
    if app.settings.http.enabled:
        app.http_server()
        serves = f", HTTP {'with TLS' if http is not None else 'without TLS'}"
    hashed = "patients hashed in SQL" if app.identities.are_hashed else "patients in SQL as they come"
    return f"listener {'with TLS' if listener is not None else 'without TLS'}{serves}, {hashed}"


def _database(app: Application) -> str:
    if not app.database.is_current():
        raise WorkerError("the tables are missing or of another version; run 'reticula db upgrade'.")
    return "reached, tables up to date"


def _broker(app: Application) -> str:
    app.broker.check()
    return "reached" if app.settings.broker_url else "embedded"


def _model(app: Application) -> str:
    if not app.database.is_current():
        raise WorkerError("not known without the tables.")
    with app.database.read() as session:
        pinned = app.settings.model
        model = app.registry.active(session) if pinned is None else app.registry.find(session, pinned)
    if model is None:
        raise WorkerError("none is active, so exams wait in 'queued'; import one with 'reticula models import FOLDER'.")

    if not may_serve(model):
        raise WorkerError(
            f"{model.name} {model.version} failed its battery, so exams wait in 'queued'; 'reticula models promote' it "
            "with --despite, or another one."
        )
    guard = app.registry.classifier(model).guard
    silent = guard is None or silent_about_all(guard) is not None
    knows = "gives no verdict on anybody" if guard is None or silent else f"knows {guard.knows}"
    return f"{model.name} {model.version}, {model.architecture}, {knows}"


def _disk(app: Application) -> str:
    folder = app.settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise WorkerError(f"data_dir {folder} cannot be made ({error.strerror}): set it to another folder.") from error
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        raise WorkerError(f"only {free / 1024**3:.1f} GiB free in {folder}.")
    try:
        with app.database.read() as session:
            return retention.room(session, folder)
    except UnavailableError:  # that is another line's matter
        return f"{free / 1024**3:.0f} GiB free"


def _work(app: Application) -> str:
    stopped = {"work paused": app.work_switch.stopped(), "intake closed": app.intake_switch.stopped()}
    shadow = ["shadow: nothing is sent"] if app.settings.delivery.shadow else []
    return "; ".join([*(f"{name} {who}" for name, who in stopped.items() if who), *shadow]) or "goes on"


def _no_destination() -> str:
    raise WorkerError("none is configured, so no report leaves; add [[destinations]] to the settings.")


def _source(app: Application, name: str) -> str:
    app.source(name).check()
    return "answers"


def _destination(destination: "Destination") -> str:
    destination.check()
    return "answers"
