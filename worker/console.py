"""What a person sees: tables and progress on the terminal, sentences on stderr."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Off a terminal nothing is cut to the width of one.
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 240)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def say(sentence: str) -> None:
    """Print a sentence as it is, without markup."""
    out.print(sentence, markup=False)


def say_json(value: Any) -> None:
    """Print a value as JSON and nothing else."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    out.file.flush()


@contextmanager
def progress() -> Iterator[Progress]:
    """Show bars with elapsed and remaining time on stderr while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bars:
        yield bars
