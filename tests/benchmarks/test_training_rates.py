"""The study's protocol with kept features against the plain loop: `make bench`."""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from models.preprocessing import Preprocessing
from tests.benchmarks.conftest import Figures
from training.dataset import LabelledSlices, load
from training.examples import ViewExamples, augmented
from training.fitting import Machine, Schedule, fit_network
from training.phantom import write_phantoms
from training.protocols import balanced, study_split
from training.sources import find_sources
from training.weights import Start, make_network

LIMIT_SECONDS, LIMIT_GIB = 120, 4
BATCHES = 3


def test_the_study_with_kept_features_against_the_plain_loop(tmp_path: Path, figures: Figures) -> None:
    """1146 slices of 512 × 512, reading included; the plain loop is measured on a few batches of 32."""
    exams = tmp_path / "exams"
    write_phantoms(exams, seed=7, exams=8, totals={"NSIP": 813, "UIP": 333}, conditions=("NSIP", "UIP"))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", "train", str(exams), "--output", "bundle", "--from-scratch",
         "--protocol", "study", "--one", "--no-int8"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    metrics = json.loads((tmp_path / "bundle" / "bundle.json").read_text(encoding="utf-8"))["metrics"]["study"]
    assert [metrics["training_images"], metrics["validation_images"], metrics["test_slices"]] == [1688, 440, 134]

    data = load(find_sources(exams), Preprocessing())
    a_batch = statistics.median(_seconds_of_a_batch(data) for _ in range(BATCHES))
    steps = -(-1688 // 32)
    # Validation costs a forward pass an image and is not counted: the plain loop is slower than this.
    plain = 30 * steps * a_batch
    what = "study protocol, 1146 slices of 512 × 512, reading included"
    figures.add(what, f"{seconds:.0f} s", f"limit {LIMIT_SECONDS} s", seconds / LIMIT_SECONDS, at_least=False)
    figures.add("its peak memory", f"{peak:.2f} GiB", f"limit {LIMIT_GIB} GiB", peak / LIMIT_GIB, at_least=False)
    against = f"plain loop of 30 epochs in eager torch: {plain:.0f} s, from {BATCHES} batches of {a_batch:.1f} s"
    figures.add("speed of the study protocol", f"{seconds:.0f} s", against, plain / seconds, at_least=True)


def _seconds_of_a_batch(data: LabelledSlices) -> float:
    """One step of the plain loop: a frozen network in eager torch, fp32, 32 views."""
    from models.architectures import HounsfieldClassifier

    split = study_split(data, balanced(data, "undersample", 0), 0)
    examples = ViewExamples(data, augmented(data, split.training, 0)[:32])
    network = make_network("mobilenet_v2", 2, Start("scratch"), 0)
    model = HounsfieldClassifier(network, Preprocessing(), frozen=True)
    started = time.perf_counter()
    fit_network(model, examples, None, Schedule(epochs=1), Machine(torch.device("cpu")))
    assert np.isfinite(float(next(model.parameters()).sum()))
    return time.perf_counter() - started
