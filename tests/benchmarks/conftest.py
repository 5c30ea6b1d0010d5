"""The table that `make bench` writes: what was measured, on which machine, beside which peers."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

_PACKAGES = ("torch", "openvino", "pynetdicom", "pydicom", "highdicom", "sqlalchemy")
_PROGRAMS = {"Orthanc": ("Orthanc", "--version"), "DCMTK": ("/usr/bin/storescu", "--version")}


_WANTED = {True: "≥ 1", False: "≤ 1", None: ""}


@dataclass(frozen=True)
class Figure:
    """A measurement. ratio: ours over what it is held against.

    at_least: whether one or more is asked for, or one or less; None where nothing is.
    """

    what: str
    ours: str
    against: str
    ratio: float
    at_least: bool | None


class Figures:
    """What was measured in this run."""

    def __init__(self) -> None:
        self._figures: list[Figure] = []

    def add(self, what: str, ours: str, against: str, ratio: float, *, at_least: bool | None) -> None:
        """Keep a measurement and print it."""
        self._figures.append(Figure(what, ours, against, ratio, at_least))
        print(f"\n{what}: {ours}; against {against}: {ratio:.2f}")

    def write(self, path: Path, failed: int) -> None:
        """Write all of them as a table. failed: the benchmarks that measured nothing, or not all."""
        rows = [
            f"| {each.what} | {each.ours} | {each.against} | {each.ratio:.2f} | {_WANTED[each.at_least]} |"
            for each in self._figures
        ]
        head = [
            "# Benchmarks",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}. {_machine()}.",
            "",
            f"Peers: {', '.join(_versions())}.",
            "",
            "Each ratio is ours over what stands beside it, measured in the same run; medians. Limits are what was",
            "asked for, not what another program reached.",
            "",
            *([f"**{failed} of the benchmarks failed: what they measure is not all here.**", ""] if failed else []),
            "| what | here | against | ratio | wanted |",
            "| --- | --- | --- | --- | --- |",
        ]
        path.write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="Write the figures to this Markdown file.")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Where benchmarks put what they measured."""
    kept = Figures()
    yield kept
    table = request.config.getoption("--table")
    if table is not None:
        kept.write(table, request.session.testsfailed)


def _machine() -> str:
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]  # fmt: skip
    memory = psutil.virtual_memory().total / 1024**3
    cores = os.cpu_count()
    return (
        f"{models[0]}, {cores} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    )


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        yield f"{name} {importlib.metadata.version(name)}"
    for name, command in _PROGRAMS.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        words = (done.stdout or done.stderr).split()
        yield f"{name} {next((word.strip('v') for word in words if word.strip('v')[:1].isdigit()), '?')}"
