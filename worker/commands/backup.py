"""`reticula backup` and `reticula restore`."""

from pathlib import Path
from typing import Annotated

import typer

from worker import audit, console
from worker.backup import back_up
from worker.commands.context import application
from worker.restore import restore as bring_back


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it: a compressed tar file.")],
    all_reports: Annotated[bool, typer.Option("--all-reports", help="Save delivered reports too.")] = False,
) -> None:
    """Save database, model bundles and undelivered reports in one file, while work goes on.

    Example: reticula backup /backup/reticula-2026-11-23.tar.gz
    """
    app = application()
    missing = back_up(app.database, app.settings.data_dir, file, all_reports=all_reports)
    with app.database.write() as session:
        audit.record(session, "backup made", file.name, actor=audit.person())
    for path in missing:
        console.err.print(f"Not in the backup, since it is not there: {path}", markup=False)
    console.say(f"{file}: {file.stat().st_size / 1024**2:.1f} MB. Received instances, settings and keys are not in it.")


def restore(file: Annotated[Path, typer.Argument(help="A file that 'reticula backup' wrote.")]) -> None:
    """Bring a backup back into an empty database and data_dir; SQLite or PostgreSQL, whichever it came from.

    Example: reticula restore /backup/reticula-2026-11-23.tar.gz
    """
    app = application()
    restored = bring_back(app.database, app.settings.data_dir, file, actor=audit.person())
    for path in restored.missing:
        console.err.print(f"The backup lacks {path}.", markup=False)
    console.say(f"Restored what was there at {restored.made_at}: {restored.rows} rows, {restored.files} files.")
