"""The table that `make bench` writes: what was measured, on which machine, beside which peers."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

_PACKAGES = (
    "torch", "openvino", "nncf", "opencv-python-headless", "imagecodecs", "pynetdicom", "pydicom", "highdicom",
    "sqlalchemy",
)  # fmt: skip
_PROGRAMS = {
    "Orthanc": ("Orthanc", "--version"),
    "DCMTK": ("/usr/bin/storescu", "--version"),
    "PostgreSQL": ("psql", "--version"),
    "Redis": ("redis-server", "--version"),
}
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

    @property
    def met(self) -> str:
        """Whether what is asked for was reached."""
        if self.at_least is None:
            return ""
        return "yes" if (self.ratio >= 1) == self.at_least or self.ratio == 1 else "**no**"


class Figures:
    """What was measured in this run."""

    def __init__(self) -> None:
        self._figures: list[Figure] = []

    def add(self, what: str, ours: str, against: str, ratio: float, *, at_least: bool | None) -> None:
        """Keep a measurement and print it."""
        self._figures.append(Figure(what, ours, against, ratio, at_least))
        print(f"\n{what}: {ours}; against {against}: {ratio:.2f}")

    def write(self, path: Path) -> None:
        """Write all of them as a table."""
        rows = [
            f"| {each.what} | {each.ours} | {each.against} | {each.ratio:.2f} | {_WANTED[each.at_least]} | {each.met} |"
            for each in self._figures
        ]
        head = [
            "# Benchmarks",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}. {_machine()}.",
            "",
            f"Peers: {', '.join(_versions())}.",
            "",
            "Each ratio is ours over what stands beside it, measured in the same run. Figures are medians of several",
            "rounds but for peers that wait 40 ms at every image without TCP_NODELAY (one round), and for eager torch",
            "(the best of three). Limits are what was asked for, not what another program reached.",
            "",
            *(f"**Failed or skipped, so that not all it measures is here: {name}.**\n" for name in _not_measured),
            "| what | here | against | ratio | wanted | met |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        path.write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")


_not_measured: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what failed, or was skipped, for the table."""
    if report.failed or report.skipped:
        _not_measured.append(report.nodeid)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="Write the figures to this Markdown file.")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Where benchmarks put what they measured."""
    kept = Figures()
    yield kept
    table = request.config.getoption("--table")
    if table is not None:
        kept.write(table)


def _machine() -> str:
    described = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")]  # fmt: skip
    model = described[0] if described else platform.machine()
    memory = psutil.virtual_memory().total / 1024**3
    place = Path(tempfile.gettempdir()).resolve()
    disks = [each for each in psutil.disk_partitions(all=True) if place.is_relative_to(each.mountpoint)]
    files = max(disks, key=lambda each: len(each.mountpoint)).fstype if disks else "unknown file system"
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {files}, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        yield f"{name} {importlib.metadata.version(name)}"
    for name, (program, option) in _PROGRAMS.items():
        path = shutil.which(program)
        if path is None:
            yield f"{name} absent"
            continue
        done = subprocess.run([path, option], capture_output=True, text=True, check=False)
        found = re.search(r"\d+(\.\d+)+", done.stdout or done.stderr)
        yield f"{name} {found.group() if found else '?'}"
