"""An int8 network beside a bundle's own, kept only where it changes nothing that an exam says.

Post-training quantisation (Jacob et al., CVPR 2018) on slices that were learned from; the gate asks patients, and
phantoms where they are too few, that quantisation never saw.
"""

import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from models.bundle import QUANTISED, Bundle
from models.classifier import Classifier, SliceOutput
from models.preprocessing import Preprocessing
from models.resizing import fit
from training.dataset import LabelledSlices
from training.phantom.disease import DISEASES
from training.phantom.slices import plan_exam, render
from training.protocols import Indices

CALIBRATION_SLICES = 300
GATE_SLICES, GATE_PATIENTS = 1000, 20
MOST_DIFFERENCE = 0.01
_FLOAT_LAYERS = 3
_MOST_GATE_SLICES = 4000  # more patients make a gate no stricter in a way that is worth the wait
_PHANTOM_SLICES = 52
_PHANTOM_SEED = 900_000  # far from those that phantoms are made with to learn from


@dataclass(frozen=True)
class Gate:
    """What became of the int8 network. patients: those of the data; phantoms: those that were added to them.

    mean_difference, largest_difference: of slice probabilities from those in 32-bit arithmetic.
    """

    kept: bool
    sentence: str
    slices: int
    patients: int
    phantoms: int
    exams: int
    verdicts_changed: int
    mean_difference: float
    largest_difference: float
    calibration_slices: int


def quantise(
    bundle: Bundle,
    data: LabelledSlices,
    learned: Indices,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Gate:
    """Write an int8 network into the folder of a bundle if it passes the gate. `learned`: slices to calibrate on.

    `progress` is told how many slices of the gate are done. The bundle is to be sealed again.
    """
    calibration, held = divide(data, learned, seed)
    with tempfile.TemporaryDirectory() as workshop:
        path = Path(workshop) / QUANTISED
        try:
            openvino.save_model(_int8(bundle.network, data.images, calibration), path)
            gate = _judge(bundle, path, data, held, len(calibration), progress)
        except Exception as error:  # the libraries raise whatever they like, and what was learned must not be lost
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            sentence = f"Not served in int8: the network could not be made or run so ({why})."
            return Gate(False, sentence, 0, 0, 0, 0, 0, 0.0, 0.0, len(calibration))
        if gate.kept:
            for file in (path, path.with_suffix(".bin")):
                shutil.copyfile(file, bundle.folder / file.name)
    return gate


def divide(data: LabelledSlices, learned: Indices, seed: int) -> tuple[Indices, Indices]:
    """Return the slices to calibrate on, and all slices of the patients who have none among them.

    Whole patients are drawn until there are CALIBRATION_SLICES, but never more than half of them.
    """
    rng = np.random.default_rng([seed, 8])
    patients = rng.permutation(np.unique(data.patients[learned]))
    chosen: list[str] = []
    rows = learned[:0]
    for patient in patients[: max(1, len(patients) // 2)].tolist():
        if len(rows) >= CALIBRATION_SLICES:
            break
        chosen.append(patient)
        rows = learned[np.isin(data.patients[learned], chosen)]
    calibration = np.sort(rng.permutation(rows)[:CALIBRATION_SLICES])
    return calibration, np.flatnonzero(~np.isin(data.patients, chosen))


def _int8(network: Path, images: NDArray[np.int16], calibration: Indices) -> openvino.Model:
    with redirect_stdout(io.StringIO()):  # it draws bars there
        import nncf  # heavy, and only here

        nncf.set_log_level(logging.ERROR)
        model = openvino.Core().read_model(network)
        layers = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
        return nncf.quantize(
            model,
            nncf.Dataset([images[row][None, None] for row in calibration]),
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.MIXED,
            # The first layer takes Hounsfield units, which 8 bits are too few for. The last ones make the features that
            # the distance from the exams of training is measured by, which rounding alone would lengthen. The linear
            # layer costs nothing, and the class activation map reads its weights.
            ignored_scope=nncf.IgnoredScope(
                names=[layers[0], *layers[-_FLOAT_LAYERS:]], types=["MatMul", "ReduceMean"], validate=False
            ),
        )


def _judge(
    bundle: Bundle,
    int8: Path,
    data: LabelledSlices,
    held: Indices,
    calibration: int,
    progress: Callable[[int, int], None],
) -> Gate:
    exact, quantised = Classifier(bundle, exact=True), Classifier(bundle, network=int8)
    exams = _exams(data, held)
    patients = len({name for rows in exams for name in data.patients[rows].tolist()})
    phantoms = done = changed = 0
    differences: list[NDArray[np.float64]] = []
    of_data = ([data.images[row] for row in rows] for rows in exams)
    for images in chain(of_data, _phantoms(bundle.description.preprocessing)):
        if len(differences) >= len(exams):
            if done >= GATE_SLICES and patients + phantoms >= GATE_PATIENTS:
                break
            phantoms += 1
        difference, other_verdict = _compare(exact, quantised, images)
        differences.append(difference)
        changed += other_verdict
        done += len(images)
        progress(done, max(GATE_SLICES, len(held)))
    every, compared = np.concatenate(differences), len(differences)
    mean, largest = float(every.mean()), float(every.max())
    kept = changed == 0 and mean <= MOST_DIFFERENCE
    asked = f"{done} slices of {patients} patients" + (f" and {phantoms} phantoms" if phantoms else "")
    verdicts = "no verdict changes" if not changed else f"{changed} of {compared} verdicts change"
    figures = f"on {asked} {verdicts}, and slice probabilities differ by {mean:.4f} in the mean, {largest:.3f} at most"
    sentence = f"{'Served in' if kept else 'Not served in'} int8: {figures}."
    return Gate(
        kept, sentence, done, patients, phantoms, compared, changed, round(mean, 6), round(largest, 6), calibration
    )


def _compare(
    exact: Classifier, quantised: Classifier, images: list[NDArray[np.int16]]
) -> tuple[NDArray[np.float64], bool]:
    """Return how far the probabilities (slices, classes) of an exam lie apart, and whether its verdict changes."""
    before, after = (
        [output for _key, output in classifier.stream((None, image) for image in images)]
        for classifier in (exact, quantised)
    )
    difference = _probabilities(after) - _probabilities(before)
    return np.abs(difference), exact.decide(before).verdict != quantised.decide(after).verdict


def _probabilities(outputs: list[SliceOutput]) -> NDArray[np.float64]:
    return np.array([output.probabilities for output in outputs])


def _exams(data: LabelledSlices, held: Indices) -> list[Indices]:
    """Return the rows of each exam of the held slices: whole ones, up to a number of slices."""
    exams: list[Indices] = []
    for name in dict.fromkeys(data.exams[held].tolist()):
        rows = held[data.exams[held] == name]
        if sum(map(len, exams)) + len(rows) > _MOST_GATE_SLICES:
            break
        exams.append(rows)
    return exams


def _phantoms(preprocessing: Preprocessing) -> Iterator[list[NDArray[np.int16]]]:
    """Yield the slices of one phantom after the other, as many as are asked for."""
    for number in count():
        plan = plan_exam(DISEASES[number % len(DISEASES)], _PHANTOM_SEED, number, slices=_PHANTOM_SLICES, lungs=True)
        spacing = plan.scan.pixel_spacing, plan.scan.pixel_spacing
        yield [fit(image.hu, spacing, preprocessing.size) for image in render(plan)]
