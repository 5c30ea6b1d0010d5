"""The entry point of `reticula`: commands, exit codes, and errors as one sentence on stderr."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from models.errors import ModelError
from pacs.errors import PacsError
from training.errors import TrainingError
from worker import console
from worker.commands.table import Commands
from worker.errors import SettingsError, WorkerError
from worker.variables import CONFIG_VARIABLE
from worker.version import __version__

FAILED, USED_WRONGLY = 1, 2

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="UIP or NSIP: chest CT from the PACS, structured reports back to it. Decision support, not a diagnosis.",
)


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
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.", FAILED)
    except typer.Abort:
        _fail("Stopped.", FAILED)
    except Exception as error:
        # Loaded where a database is used; to load it for a list of commands would take longer than the list.
        database = sys.modules.get("sqlalchemy.exc")
        if database is None or not isinstance(error, database.SQLAlchemyError):
            raise
        _fail(f"The database refused: {str(error).splitlines()[0]}.", FAILED)


def _fail(sentence: str, code: int) -> None:
    console.err.print(sentence, markup=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
