"""Slices from files on disk to probabilities, against eager torch and against what the processor could do at most."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.architectures import HounsfieldClassifier, build
from models.bundle import open_bundle
from models.classifier import Classifier
from models.lung_mask import find_lungs
from models.resizing import fit
from pacs.pixels import decode
from pacs.selection import select
from pacs.series import read_series
from tests.benchmarks.conftest import Figures
from training.phantom import write_phantoms
from worker.classification import classify_series
from worker.registry import demo_bundle

ROUNDS, SLICES = 5, 300
GFLOP = 3.13  # of MobileNetV2 for a slice of 512 × 512
# Where a bundle serves in bf16, because int8 did not pass its gate, it is held against its own network alone.
OVER_FP32, OVER_EAGER, OF_THE_LIMIT, OF_THE_NETWORK = 4.5, 2.5, 0.9, 0.9
# What eager torch does best, by precision, memory layout and batch; measured in a process of its own, with all cores
# and an allocator that keeps its memory.
_TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "OMP_NUM_THREADS": str(os.cpu_count()),
}  # fmt: skip
_LIMIT = "limit"
_EAGER = {
    "fp32, channels first, batch 1": (torch.float32, torch.contiguous_format, 1),
    "fp32, channels last, batch 1": (torch.float32, torch.channels_last, 1),
    "bf16, channels last, batch 1": (torch.bfloat16, torch.channels_last, 1),
    "bf16, channels last, batch 8": (torch.bfloat16, torch.channels_last, 8),
    "bf16, channels last, batch 16": (torch.bfloat16, torch.channels_last, 16),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series whose every slice shows lung enough."""
    folder = tmp_path_factory.mktemp("phantoms")
    (exam,) = write_phantoms(folder, seed=5, exams=1, conditions=["NSIP"], totals={"NSIP": SLICES})
    return sorted((folder / exam.folder).glob("*.dcm"))


def rate(work: Callable[[], int]) -> float:
    started = time.perf_counter()
    return work() / (time.perf_counter() - started)


def eager_rates(images: NDArray[np.int16]) -> dict[str, float]:
    """Slices a second of the demo's network in eager torch, the best of three rounds."""
    description = open_bundle(demo_bundle()).description
    rates: dict[str, float] = {}
    for name, (precision, layout, batch) in _EAGER.items():
        network = build(description.architecture, 2)
        network.load_state_dict(load_file(demo_bundle() / "weights.safetensors"))
        model = HounsfieldClassifier(network.float().eval(), description.preprocessing)
        model.to(memory_format=layout)

        def work(
            model: HounsfieldClassifier = model,
            precision: torch.dtype = precision,
            layout: torch.memory_format = layout,
            batch: int = batch,
        ) -> int:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                for start in range(0, len(images), batch):
                    slices = torch.from_numpy(images[start : start + batch, None]).float()
                    torch.softmax(model(slices.to(memory_format=layout)), 1)
            return len(images)

        work()
        rates[name] = max(rate(work) for _ in range(3))
    return rates


def bf16_limit() -> float:
    """Slices a second if all were one large matrix product in bf16."""
    size = 4096
    left = torch.randn(size, size, dtype=torch.bfloat16)
    right = torch.randn(size, size, dtype=torch.bfloat16)

    def product() -> int:
        torch.mm(left, right)
        return 1

    product()
    return statistics.median(rate(product) for _ in range(7)) * 2 * size**3 / 1e9 / GFLOP


def test_slices_from_files_to_probabilities(files: list[Path], tmp_path: Path, figures: Figures) -> None:
    series = select(read_series(files), min_slices=3)
    images = np.array([decode(source).hu for source in series.slices])
    np.save(tmp_path / "images.npy", images[:48])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.benchmarks.test_slices", str(tmp_path / "images.npy")],
        env={**os.environ, **_TUNED}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    eager = {name: float(value) for name, value in (line.split("\t") for line in done.stdout.splitlines())}
    classifier = Classifier.open(demo_bundle())
    limit = eager.pop(_LIMIT)

    compiled = openvino.Core().compile_model(classifier.bundle.network, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    queue = openvino.AsyncInferQueue(compiled)

    def network() -> int:
        for image in images:
            queue.start_async({0: image[None, None]})
        queue.wait_all()
        return len(images)

    def whole() -> int:
        return classify_series(files, classifier, min_slices=3).classified

    assert classifier.precision != "int8", "another network than the one that it is held against"
    assert whole() == network() == SLICES
    pairs = [(rate(whole), rate(network)) for _ in range(ROUNDS)]
    ours, alone = (statistics.median(column) for column in zip(*pairs, strict=True))
    what = f"slices from files to probabilities ({classifier.precision})"
    said = f"{ours:.0f} slices/s"
    share = statistics.median(one / other for one, other in pairs)
    figures.add(
        what,
        said,
        f"0.9 × its network alone, by OpenVINO's own queue: {alone:.0f} slices/s",
        share / OF_THE_NETWORK,
        at_least=True,
    )
    asked = True if classifier.precision == "int8" else None
    fp32 = max(value for name, value in eager.items() if "fp32" in name)
    figures.add(what, said, f"4.5 × the best eager torch in fp32: {fp32:.0f} slices/s", ours / fp32 / OVER_FP32,
                at_least=asked)  # fmt: skip
    best, value = max(eager.items(), key=lambda each: each[1])
    figures.add(what, said, f"2.5 × the best eager torch ({best}): {value:.0f} slices/s", ours / value / OVER_EAGER,
                at_least=asked)  # fmt: skip
    figures.add(what, said, f"0.9 × the limit by a bf16 matrix product: {limit:.0f} slices/s",
                ours / limit / OF_THE_LIMIT, at_least=asked)  # fmt: skip


def test_the_share_of_each_stage(files: list[Path], figures: Figures) -> None:
    """Processor time of each stage for a slice, alone and one after the other."""
    classifier = Classifier.open(demo_bundle())
    size = classifier.bundle.description.preprocessing.size
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        started = time.process_time()
        done = work()
        seconds[name] = time.process_time() - started
        return done

    selection = select(read_series(files), min_slices=3)
    timed("headers", lambda: select(read_series(files), min_slices=3))
    decoded = [decode(source) for source in selection.slices]
    slices = [
        (each.hu, each.source.pixel_spacing) for each in decoded if each.hu is not None and each.source.pixel_spacing
    ]
    timed("read and decode", lambda: [decode(source) for source in selection.slices])
    timed("lung mask", lambda: [find_lungs(hu, spacing).fraction(spacing) for hu, spacing in slices])
    timed("resize", lambda: [fit(hu, spacing, size) for hu, spacing in slices])
    classifier.probabilities([hu for hu, _spacing in slices[:8]])
    timed("network", lambda: classifier.probabilities(hu for hu, _spacing in slices))
    total = sum(seconds.values())
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())
    each = total / len(slices) * 1000
    figures.add("processor time of a slice by stage", f"{each:.1f} ms: {shares}", "the network's own time",
                total / seconds["network"], at_least=None)  # fmt: skip


if __name__ == "__main__":
    for _name, _rate in {**eager_rates(np.load(sys.argv[1])), _LIMIT: bf16_limit()}.items():
        print(f"{_name}\t{_rate}")
