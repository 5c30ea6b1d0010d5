"""The entry point of `reticula`: commands, exit codes, and errors as one sentence on stderr."""

import os
import sys
from pathlib import Path
from typing import Annotated

import click
import typer
from sqlalchemy.exc import SQLAlchemyError

from models.errors import ModelError
from pacs.errors import PacsError
from training.errors import TrainingError
from worker import console
from worker.commands import database, exams, models, rules
from worker.commands.backup import backup, restore
from worker.commands.check import check
from worker.commands.compare import compare
from worker.commands.conformance import conformance
from worker.commands.demo import demo
from worker.commands.evaluate import evaluate
from worker.commands.pause import drain, pause, resume
from worker.commands.phantom import phantom
from worker.commands.pull import pull
from worker.commands.retrain import retrain
from worker.commands.serve import listen, serve, sweep, up, work
from worker.commands.train import train
from worker.commands.worklist import worklist
from worker.errors import SettingsError, WorkerError
from worker.settings import CONFIG_VARIABLE
from worker.version import __version__

FAILED, USED_WRONGLY = 1, 2

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="UIP or NSIP: chest CT from the PACS, structured reports back to it. Decision support, not a diagnosis.",
)
for command in (
    demo, up, listen, serve, work, sweep, pause, drain, resume, pull, worklist, conformance, check, backup, restore,
    phantom, train, evaluate, compare, retrain,
):  # fmt: skip
    app.command()(command)
app.add_typer(exams.app, name="exams")
app.add_typer(models.app, name="models")
app.add_typer(rules.app, name="rules")
app.add_typer(database.app, name="db")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file (default: reticula.toml here).")] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Take the options that stand before the command."""
    if config is not None:
        # Children inherit it.
        os.environ[CONFIG_VARIABLE] = str(config.absolute())
    if version:
        console.say(f"reticula {__version__}")
    elif context.invoked_subcommand is None:
        console.say(context.get_help())


def main() -> None:
    """Run the command line."""
    try:
        app()
    except SettingsError as error:
        _fail(str(error), USED_WRONGLY)
    except (WorkerError, PacsError, ModelError, TrainingError) as error:
        _fail(str(error), FAILED)
    except SQLAlchemyError as error:
        _fail(f"The database refused: {str(error).splitlines()[0]}.", FAILED)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.", FAILED)
    except click.exceptions.Abort:
        _fail("Stopped.", FAILED)


def _fail(sentence: str, code: int) -> None:
    console.err.print(sentence, markup=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
