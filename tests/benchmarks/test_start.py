"""How long a command and a worker take to begin."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.conftest import Figures
from tests.installation import Installation

ROUNDS = 7
HELP_SECONDS, READY_SECONDS = 0.3, 3.0


def test_the_list_of_commands(figures: Figures) -> None:
    def seconds(*arguments: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-P", *arguments], check=True, capture_output=True)
        return time.perf_counter() - started

    seconds("-m", "worker.main", "--help")
    pairs = [
        (seconds("-m", "worker.main", "--help"), seconds("-c", "import typer, rich.console")) for _ in range(ROUNDS)
    ]
    ours, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
    figures.add(
        "`reticula --help`", f"{ours:.2f} s (its library alone: {peer:.2f} s)", f"limit {HELP_SECONDS} s",
        ours / HELP_SECONDS, at_least=False,
    )  # fmt: skip


def test_a_worker(figures: Figures, tmp_path: Path) -> None:
    installation = Installation(tmp_path / "installation")
    installation.prepare()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        process = installation.start("work")
        times.append(time.perf_counter() - started)
        installation.stop(process)
    installation.close()
    median = statistics.median(times)
    figures.add(
        "a worker says `ready`", f"{median:.2f} s after its start", f"limit {READY_SECONDS:.0f} s",
        median / READY_SECONDS, at_least=False,
    )  # fmt: skip
