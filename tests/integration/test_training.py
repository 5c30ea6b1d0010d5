"""`reticula train` and its parts on small data: from labelled slices to a bundle that serves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.architectures import ARCHITECTURES
from models.bundle import open_bundle
from models.classifier import Classifier
from models.preprocessing import Preprocessing
from tests.slices import labelled_slices
from training.errors import TrainingError
from training.fitting import Schedule
from training.learners import Views
from training.phantom import PhantomExam, write_phantoms
from training.recipe import Recipe, Run
from training.weights import Start
from worker.main import app

CPU = torch.device("cpu")
SIZE = 64
QUICK = ("--no-int8", "--size", SIZE, "--epochs", 2)


def reticula(folder: Path, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", *map(str, arguments)],
        capture_output=True, text=True, timeout=220, check=False, cwd=folder, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run commands in this process, where torch is loaded already."""
    for variable in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.setenv(variable, "1")  # else the command would start itself again
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight phantoms in the study's proportion of slices."""
    folder = tmp_path_factory.mktemp("eight")
    write_phantoms(folder, seed=7, exams=8, totals={"NSIP": 56, "UIP": 24}, conditions=("NSIP", "UIP"))
    return folder


def test_train_prints_both_figures_and_writes_a_bundle_that_serves(
    eight: Path, tmp_path: Path, imagenet_weights: Path, here: Callable[..., Any]
) -> None:
    done = reticula(tmp_path, "train", eight, "--output", "b", "--weights", imagenet_weights, *QUICK, "--version", "7")
    assert done.returncode == 0, done.stderr
    by_patient, by_slice, sentence, silent, where = done.stdout.strip().splitlines()
    # The study's case: with eight patients nobody is known.
    assert silent == (
        "It gives no verdict on anybody: the model needs 15 more of UIP and 15 more of NSIP, phantoms that it "
        "never learned from, before it may know anybody."
    )
    assert by_patient.startswith("By patient: ")
    assert by_slice.startswith("By slice: ")
    assert " to " in by_patient
    assert "of 48 test slices of 8 patients (4 UIP, 4 NSIP) are right. 4 patients of a class say little" in by_patient
    assert "Patients stand on both sides of this split" in by_slice
    assert "by slice" in sentence
    assert "With 8 patients neither figure says much" in sentence
    assert "b" in where
    description = open_bundle(tmp_path / "b").description
    assert (description.name, description.version, description.architecture) == ("uip-nsip", "7", "mobilenet_v2")
    assert description.command.startswith("reticula train")
    metrics = description.metrics
    assert metrics["patient"]["folds"] == 4
    assert metrics["patient"]["slices"]["slices"] == 48
    assert metrics["study"]["test_slices"] == round(48 * 134 / 666)
    assert metrics["study"]["training_images"] == 4 * (48 - round(48 * 134 / 666) - round(48 * 110 / 666))
    assert len(description.data["patients_by_side"]["training"]) == 8
    assert description.data["limits"]
    card = (tmp_path / "b" / "card.md").read_text(encoding="utf-8")
    for word in ("Intended use", "Limits", "by patient", "calibration error", "weights of mobilenet_v2-imagenet1k"):
        assert word in card
    figures = {path.name for path in (tmp_path / "b" / "figures").iterdir()}
    assert figures == {
        "augmentation.png", "learning.png", "roc.png", "reliability.png", "confusion.png", "abstention.png",
        "most-wrong.png", "by-patient-slices.csv", "by-patient-exams.csv", "by-slice-slices.csv", "by-slice-exams.csv",
    }  # fmt: skip
    table = (tmp_path / "b" / "figures" / "by-patient-slices.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 48
    assert "PHANTOM" not in "".join(table)
    assert "8 patients (4 UIP, 4 NSIP)" in card
    assert "PHANTOM" not in (tmp_path / "b" / "bundle.json").read_text(encoding="utf-8")
    probabilities = Classifier.open(tmp_path / "b").probabilities([np.zeros((SIZE, SIZE), np.int16)])
    assert probabilities.sum() == pytest.approx(1, abs=1e-3)
    again = here("train", eight, "--output", "b", "--weights", imagenet_weights, *QUICK)
    assert "exists already" in str(again.exception)

    measured = here("evaluate", "b", eight, "--output", "figures", "--json")
    assert measured.exit_code == 0, measured.stderr
    content = json.loads(measured.stdout)
    assert content["slices"]["slices"] == 80
    assert content["exams"]["exams"] == 8
    assert any("learned from 8 of the 8 patients" in warning for warning in content["warnings"])
    assert (tmp_path / "figures" / "roc.png").stat().st_size > 1000
    assert len((tmp_path / "figures" / "slices.csv").read_text(encoding="utf-8").splitlines()) == 1 + 80
    exams = (tmp_path / "figures" / "exams.csv").read_text(encoding="utf-8")
    assert exams.count("PHANTOM") == 8


def test_compare_prints_the_table_of_the_study_and_names_the_winner(
    eight: Path, tmp_path: Path, here: Callable[..., Any]
) -> None:
    small = ("--from-scratch", "--size", 32, "--epochs", 1, "--folds", 1)
    two = ("--architecture", "mobilenet_v2", "--architecture", "efficientnet_b0")
    done = here("compare", eight, "--output", "c", *small, *two, "--control", 2, "--json")
    assert done.exit_code == 0, done.stderr
    assert "in all" in done.stderr
    content = json.loads(done.stdout)
    networks = {row["architecture"]: row for row in content["networks"]}
    best = max(row["study"]["validation_accuracy"] for row in networks.values())
    expected = min(
        (row for row in networks.values() if row["study"]["validation_accuracy"] == best),
        key=lambda row: row["parameters"],
    )
    assert content["winner"] == expected["architecture"]
    page = (tmp_path / "c" / "comparison.md").read_text(encoding="utf-8")
    assert "2,226,434" in page
    assert "## By patient" in page
    for row in networks.values():
        control = row["control"]
        assert len(control["accuracies"]) == 2
        assert control["relabelled"] == [4, 4]
        assert control["sentence"] in page
        assert page.count(f"{control['accuracy']:.1%} |") >= 2  # beside the figure by slice, and by patient
    assert "Tested: slices of" in page
    assert "Patients stand on both sides of this split" in page


def test_one_patient_a_class_is_said_to_say_nothing(tmp_path: Path, here: Callable[..., Any]) -> None:
    write_phantoms(tmp_path / "two", seed=3, exams=2, totals={"NSIP": 12, "UIP": 12}, conditions=("NSIP", "UIP"))
    options = ("--from-scratch", "--size", 32, "--epochs", 1, "--architecture", "mobilenet_v2")
    done = here("compare", "two", "--output", "c", *options)
    assert done.exit_code == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "2 patients (1 UIP, 1 NSIP). Patients stand on both sides" in said
    assert "one patient alone stands for UIP and for NSIP" in said
    assert "No control by permuted labels: with one patient of each class" in said
    assert "Not measured: a class has too few patients" in said


def test_four_architectures_are_trained_exported_and_serve(tmp_path: Path) -> None:
    data = labelled_slices({"UIP": {"u1": 3, "u2": 3, "u3": 3}, "NSIP": {"n1": 3, "n2": 3, "n3": 3}}, size=32)
    parameters = {}
    for name in ARCHITECTURES:
        recipe = Recipe(
            name=name, version="1", architecture=name, start=Start("scratch"), protocol="study", fine_tune="last",
            balance="undersample", folds=None, views=Views(), schedule=Schedule(epochs=1), device="cpu", both=False,
            limits="", command="",
        )  # fmt: skip
        trained = Run(recipe, data, tmp_path / "features").train(tmp_path / name)
        parameters[name] = trained.parameters
        assert trained.bundle.description.architecture == name
        probabilities = Classifier(trained.bundle).probabilities([data.images[0]])
        assert probabilities.sum() == pytest.approx(1, abs=1e-3)
        shutil.rmtree(tmp_path / name)
    assert parameters == {
        "mobilenet_v2": 2_226_434, "vgg16": 134_268_738, "resnet50": 23_512_130, "efficientnet_b0": 4_010_110,
    }  # fmt: skip


def test_without_a_network_nothing_is_silently_random(
    eight: Path, tmp_path: Path, here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads are refused by a proxy that is not there: the sentence says what to do."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    done = here("train", eight, "--output", "b", *QUICK)
    assert isinstance(done.exception, TrainingError)
    assert "cannot be downloaded" in str(done.exception)
    assert "--from-scratch" in str(done.exception)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--protocol", "random"), "--protocol"),
        (("--architecture", "alexnet"), "--architecture"),
        (("--fine-tune", "some"), "--fine-tune"),
        (("--balance", "no"), "--balance"),
        (("--device", "tpu"), "--device"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, here: Callable[..., Any], options: tuple[str, ...], sentence: str
) -> None:
    done = here("train", tmp_path, "--output", "b", "--from-scratch", *options)
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_ctrl_c_keeps_the_best_epoch_and_resume_goes_on(eight: Path, tmp_path: Path, here: Callable[..., Any]) -> None:
    arguments = ("train", str(eight), "--output", "b", "--from-scratch", "--no-int8", "--fine-tune", "all", "--one",
                 "--folds", "1", "--size", "64", "--epochs", "400", "--batch", "4",
                 "--learning-rate", "0.001")  # fmt: skip
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        # A shell has what it runs in the background ignore the signal, and so would its children.
        ["env", "--default-signal=INT", sys.executable, "-P", "-m", "worker.main", *arguments],
        cwd=tmp_path, stderr=log, stdout=log,
    )  # fmt: skip
    checkpoint = tmp_path / ".b.run" / "patient-1.pt"
    deadline = time.monotonic() + 120
    try:
        while not checkpoint.exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        log.close()
    metrics = open_bundle(tmp_path / "b").description.metrics
    assert metrics["interrupted"]
    stopped_at = len(metrics["epochs"])
    assert 1 <= stopped_at < 400
    refused = here(*arguments[:-1], "0.002", "--resume")
    assert "other options" in str(refused.exception)
    checkpoint_state = torch.load(checkpoint, weights_only=True)
    assert len(checkpoint_state["history"]) >= stopped_at


def test_a_run_whose_patients_were_corrected_is_not_gone_on_with(tmp_path: Path) -> None:
    """The split follows the patients: an old network would be tested on slices that it has learned."""
    counts = {"UIP": {"u1": 4, "u2": 4, "u3": 4}, "NSIP": {"n1": 4, "n2": 4, "n3": 4}}
    data = labelled_slices(counts, size=SIZE)
    patients = data.patients.copy()
    patients[:8] = patients[:8][::-1]
    for changed in (data, replace(data, patients=patients)):
        recipe = Recipe(
            name="r", version="1", architecture="mobilenet_v2", start=Start("scratch"), protocol="patient",
            fine_tune="last", balance="undersample", folds=1, views=Views(), schedule=Schedule(epochs=1), device="cpu",
            both=False, limits="", command="",
        )  # fmt: skip
        run = Run(recipe, changed, tmp_path / "features")
        assert run.resumable(tmp_path / "out") is False
        if changed is data:
            run._checkpoints(tmp_path / "out", resume=False)
            assert run.resumable(tmp_path / "out") is True


def test_kill_9_in_mid_training_loses_no_finished_epoch(eight: Path, tmp_path: Path) -> None:
    arguments = ("train", str(eight), "--output", "b", "--from-scratch", "--no-int8", "--fine-tune", "all", "--one",
                 "--folds", "1", "--size", "64", "--epochs", "3", "--batch", "16")  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "worker.main", *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    checkpoint = tmp_path / ".b.run" / "patient-1.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait(10)
    assert not (tmp_path / "b").exists()
    done = reticula(tmp_path, *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    metrics = open_bundle(tmp_path / "b").description.metrics
    assert [len(metrics["epochs"]), metrics["interrupted"]] == [3, False]
    assert not (tmp_path / ".b.run").exists()


def test_phantoms_of_totals_show_lung_in_every_slice(phantoms: tuple[Path, list[PhantomExam]], eight: Path) -> None:
    from models.lung_mask import find_lungs
    from pacs.pixels import decode_all
    from pacs.series import read_series

    truth: dict[str, Any] = json.loads((eight / "truth.json").read_text(encoding="utf-8"))
    counts: dict[str, int] = {}
    for exam in truth.values():
        counts[exam["label"]] = counts.get(exam["label"], 0) + exam["slices"]
        series = read_series(sorted((eight / exam["folder"]).glob("*.dcm")))
        for decoded in decode_all(series.slices[:: len(series.slices) - 1], threads=1):
            assert decoded.hu is not None
            assert decoded.source.pixel_spacing is not None
            lungs = find_lungs(decoded.hu, decoded.source.pixel_spacing)
            assert lungs.fraction(decoded.source.pixel_spacing) > Preprocessing().min_lung_fraction
    assert counts == {"NSIP": 56, "UIP": 24}
    assert phantoms[1]
