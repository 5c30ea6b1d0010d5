"""An int8 network beside a bundle's own, kept only where it changes nothing that an exam says.

Post-training quantisation (Jacob et al., CVPR 2018) on slices that were learned from; the gate asks patients, and
phantoms where they are too few, that quantisation never saw.
"""

import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import chain, count, zip_longest
from pathlib import Path
from shutil import copyfile

import numpy as np
import openvino
from numpy.typing import NDArray

from models.bundle import QUANTISED, Bundle
from models.classifier import Classifier, SliceOutput
from models.inference import multiplies_int8
from models.preprocessing import Preprocessing
from models.resizing import fit
from training.dataset import LabelledSlices
from training.phantom.disease import DISEASES
from training.phantom.slices import plan_exam, render
from training.protocols import Indices

CALIBRATION_SLICES = 300
GATE_SLICES, GATE_PATIENTS = 1000, 20
GATE_VERDICTS = 5  # of each class: exams of which nothing is said before and after would let anything pass
MOST_DIFFERENCE = 0.01
_FLOAT_LAYERS = 3
_MOST_GATE_SLICES = 4000  # drawn from all classes: more would be asked in vain
_PHANTOM_SLICES = 52
_PHANTOM_SEED = 900_000  # far from those that phantoms are made with to learn from


@dataclass(frozen=True)
class Gate:
    """What became of the int8 network. patients: those of the data; phantoms: those that were added to them.

    fewest_verdicts: of the class that was said of the fewest exams. mean_difference, largest_difference: of slice
    probabilities from those in 32-bit arithmetic. seed: of the draw of the slices to calibrate on.
    """

    kept: bool
    sentence: str
    slices: int
    patients: int
    phantoms: int
    exams: int
    verdicts_changed: int
    fewest_verdicts: int
    mean_difference: float
    largest_difference: float
    calibration_slices: int
    seed: int

    @classmethod
    def not_asked(cls, why: str, seed: int) -> "Gate":
        """Return what became of a network that came to no gate."""
        return cls(False, f"Not served in int8: {why}.", 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0, seed)


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
    if not multiplies_int8():
        return Gate.not_asked("this processor does not multiply so without losses (no VNNI), and cannot judge it", seed)
    calibration, held = divide(data, learned, seed)
    with tempfile.TemporaryDirectory() as workshop:
        path = Path(workshop) / QUANTISED
        kept = [bundle.folder / path.name, bundle.folder / path.with_suffix(".bin").name]
        try:
            openvino.save_model(_int8(bundle.network, data.images, calibration), path)
            gate = _judge(bundle, path, data, held, len(calibration), seed, progress)
            if gate.kept:
                for file in kept:
                    copyfile(path.with_name(file.name), file)
        except Exception as error:  # the libraries raise whatever they like, and what was learned must not be lost
            for file in kept:
                file.unlink(missing_ok=True)
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Gate.not_asked(f"the network could not be made or run so ({why})", seed)
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
    seed: int,
    progress: Callable[[int, int], None],
) -> Gate:
    exact, quantised = Classifier(bundle, exact=True, asked=True), Classifier(bundle, network=int8, asked=True)
    exams = _exams(data, held, seed)
    patients = len({name for rows in exams for name in data.patients[rows].tolist()})
    expected = max(GATE_SLICES, sum(map(len, exams)))
    phantoms = done = changed = 0
    said = dict.fromkeys(bundle.description.class_names, 0)
    differences: list[NDArray[np.float64]] = []
    of_data = ([data.images[row] for row in rows] for rows in exams)
    for images in chain(of_data, _phantoms(bundle.description.preprocessing)):
        if len(differences) >= len(exams):
            if done >= GATE_SLICES and patients + phantoms >= GATE_PATIENTS:
                break
            phantoms += 1
        before, after = _outputs(exact, images), _outputs(quantised, images)
        differences.append(np.abs(_probabilities(after) - _probabilities(before)))
        verdict, other = exact.decide(before, phantom=True), quantised.decide(after, phantom=True)
        changed += (verdict.verdict, verdict.reason_code) != (other.verdict, other.reason_code)
        if verdict.verdict in said:
            said[verdict.verdict] += 1
        done += len(images)
        progress(done, expected)
    every, compared = np.concatenate(differences), len(differences)
    mean, largest, fewest = float(every.mean()), float(every.max()), min(said.values())
    kept = changed == 0 and mean <= MOST_DIFFERENCE and fewest >= GATE_VERDICTS
    asked = f"{done} slices of {patients} patients" + (f" and {phantoms} phantoms" if phantoms else "")
    verdicts = "no verdict changed" if not changed else f"{changed} of {compared} verdicts changed"
    figures = (
        f"on {asked} {verdicts}, and slice probabilities differed by {mean:.4f} in the mean, {largest:.3f} at most"
    )
    if fewest < GATE_VERDICTS:
        counts = ", ".join(f"{name} of {number}" for name, number in said.items())
        figures += f"; too few of these exams have a verdict that could change ({counts})"
    sentence = f"{'Served in' if kept else 'Not served in'} int8: {figures}."
    return Gate(
        kept=kept, sentence=sentence, slices=done, patients=patients, phantoms=phantoms, exams=compared,
        verdicts_changed=changed, fewest_verdicts=fewest, mean_difference=round(mean, 6),
        largest_difference=round(largest, 6), calibration_slices=calibration, seed=seed,
    )  # fmt: skip


def _outputs(classifier: Classifier, images: list[NDArray[np.int16]]) -> list[SliceOutput]:
    return [output for _key, output in classifier.stream((None, image) for image in images)]


def _probabilities(outputs: list[SliceOutput]) -> NDArray[np.float64]:
    return np.array([output.probabilities for output in outputs])


def _exams(data: LabelledSlices, held: Indices, seed: int) -> list[Indices]:
    """Return the rows of exams of the held slices: whole ones, up to a number of slices, of all classes in turn."""
    rng = np.random.default_rng([seed, 9])
    by_class: dict[str, list[Indices]] = {}
    for name in rng.permutation(np.unique(data.exams[held])).tolist():
        rows = held[data.exams[held] == name]
        by_class.setdefault(str(data.kinds[rows[0]]), []).append(rows)
    exams: list[Indices] = []
    left = _MOST_GATE_SLICES
    for rows in chain.from_iterable(zip_longest(*by_class.values())):
        if rows is not None and len(rows) <= left:
            exams.append(rows)
            left -= len(rows)
    return exams


def _phantoms(preprocessing: Preprocessing) -> Iterator[list[NDArray[np.int16]]]:
    """Yield the slices of one phantom after the other, as many as are asked for."""
    for number in count():
        plan = plan_exam(DISEASES[number % len(DISEASES)], _PHANTOM_SEED, number, slices=_PHANTOM_SLICES, lungs=True)
        spacing = plan.scan.pixel_spacing, plan.scan.pixel_spacing
        yield [fit(image.hu, spacing, preprocessing.size) for image in render(plan)]
