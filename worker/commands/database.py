"""`reticula db`: the tables."""

import typer

from worker import console
from worker.commands.context import application

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The database.")


@app.callback()
def group() -> None:
    """The database."""


@app.command()
def upgrade() -> None:
    """Bring the tables up to date.

    Example: reticula db upgrade
    """
    database = application().database
    database.upgrade()
    console.say("The database is up to date.")
