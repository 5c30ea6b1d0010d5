"""`make fuzz`: hostile bytes through the parsers and through sockets, with a table as Markdown."""

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import sockets

# Of all inputs through the parsers; those that decode pixels take longest.
SHARES = {"dataset": 0.4, "stow": 0.1, "commitment": 0.2, "pdu": 0.2, "header": 0.05, "pixels": 0.05}


def main() -> int:
    """Run everything; 1 where something was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--parsers", type=int, default=1_000_000)
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        runs = {name: round(options.parsers * share) for name, share in SHARES.items()}
        jobs = {
            name: pool.submit(guided, name, count, options.seed, Path(folder) / name) for name, count in runs.items()
        }
        found = {name: job.result() for name, job in jobs.items()}
        count = sockets.run(Path(folder) / "sockets", options.sockets, options.seed)
    print("| target | inputs | a second | peak MB | found |\n| --- | --- | --- | --- | --- |")  # noqa: T201
    for name, (executed, rate, peak, finding) in found.items():
        print(f"| {name} | {executed:,} | {rate:,} | {peak} | {finding or 'nothing'} |")  # noqa: T201
    good = f"nothing; {count.good} good instances in between"
    print(f"| sockets | {count.inputs:,} | | {count.peak >> 20} | {good} |")  # noqa: T201
    return any(finding for *_figures, finding in found.values())


def guided(name: str, runs: int, seed: int, folder: Path) -> tuple[int, int, int, str]:
    """Run one target; return inputs, inputs a second, peak memory in MB, and what was found."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", name, str(runs), str(seed), str(folder)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip

    def figure(label: str) -> int:
        match = re.search(rf"stat::{label}:\s+(\d+)", done.stderr)
        return int(match[1]) if match else 0

    finding = "" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-1500:]}"
    if finding:
        print(f"{name}: {finding}", file=sys.stderr)  # noqa: T201
    if not finding and figure("number_of_executed_units") < runs:
        finding = f"it ended after {figure('number_of_executed_units')} inputs"
    figures = figure("number_of_executed_units"), figure("average_exec_per_sec"), figure("peak_rss_mb")
    return (*figures, finding and f"{finding.splitlines()[0][:60]}, see stderr")


if __name__ == "__main__":
    sys.exit(main())
