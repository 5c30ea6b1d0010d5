"""The targets of make that the suite is not itself."""

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_make_bench_finds_its_benchmarks_beside_what_a_run_of_the_suite_leaves() -> None:
    (ROOT / ".hypothesis").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "bench"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    command = shlex.split(shown.stdout.splitlines()[-1])
    assert "tests/benchmarks" in command
    collected = subprocess.run(
        [*command, "--collect-only", "--quiet"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert collected.returncode == 0, collected.stdout
    for benchmark in ROOT.glob("tests/benchmarks/test_*.py"):
        assert benchmark.name in collected.stdout
