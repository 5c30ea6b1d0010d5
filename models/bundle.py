"""A trained model as a folder: `bundle.json`, the OpenVINO IR, the weights to train on from, and a card.

`bundle.json` holds the sha256 of every other file, so its own sha256 names the whole bundle.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.errors import BundleError
from models.guard import Guard
from models.preprocessing import Preprocessing
from models.verdict import OperatingPoint

FORMAT = 3
# Older bundles open, and abstain on everything: their guard was measured on the exams that they had learned from.
_UNGUARDED_FORMAT = 2
MANIFEST = "bundle.json"
NETWORK = "network.xml"
QUANTISED = "network-int8.xml"
WEIGHTS = "weights.safetensors"
CARD = "card.md"
FAMILIARITY = "familiarity.npz"
_REQUIRED = (NETWORK, "network.bin", WEIGHTS, FAMILIARITY, CARD)


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.16 chapter 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class ModelClass:
    """A class of the network, in the order of its outputs."""

    name: str
    code: Code


UIP = ModelClass("UIP", Code("RID5333", "RADLEX", "Usual interstitial pneumonia"))
NSIP = ModelClass("NSIP", Code("RID5341", "RADLEX", "Nonspecific interstitial pneumonia"))
NORMAL = ModelClass("normal", Code("17621005", "SCT", "Normal"))
OTHER = ModelClass("other", Code("74964007", "SCT", "Other"))
KNOWN_CLASSES = {known.name: known for known in (UIP, NSIP, NORMAL, OTHER)}


@dataclass(frozen=True)
class Description:
    """What a bundle says of itself.

    temperature: what the logits are divided by (the network does it). metrics: figures with the split that they were
    measured on. data: what it was trained on, with a fingerprint. parent: sha256 of the bundle that it was trained
    on from. quantisation: whether an int8 network lies beside the other (`kept`), and what its gate found; None where
    none was tried. guard: whom it knows; battery: what it said of what it must not name (`training.battery`). Without
    both it abstains on everything.
    """

    name: str
    version: str
    architecture: str
    classes: tuple[ModelClass, ...]
    preprocessing: Preprocessing
    operating_point: OperatingPoint
    temperature: float
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    command: str
    parent: str | None = None
    quantisation: Mapping[str, Any] | None = None
    guard: Guard | None = None
    battery: Mapping[str, Any] | None = None

    @property
    def quantised(self) -> bool:
        """Whether an int8 network serves."""
        return self.quantisation is not None and self.quantisation["kept"] is True

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the network's outputs."""
        return tuple(known.name for known in self.classes)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files are those that its manifest names."""

    folder: Path
    sha256: str
    description: Description

    @property
    def network(self) -> Path:
        """The OpenVINO IR."""
        return self.folder / NETWORK

    @property
    def quantised(self) -> Path | None:
        """The OpenVINO IR in int8, where one passed its gate."""
        return self.folder / QUANTISED if self.description.quantised else None

    @property
    def weights(self) -> Path:
        """The weights to train on from."""
        return self.folder / WEIGHTS

    @property
    def familiarity(self) -> Path:
        """Where the exams of training lie."""
        return self.folder / FAMILIARITY


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle and check every file against its sha256. Raises BundleError."""
    manifest = folder / MANIFEST
    try:
        raw = manifest.read_bytes()
        content = json.loads(raw)
    except OSError as error:
        raise BundleError(f"{folder} holds no readable {MANIFEST}: {error.strerror}.") from error
    except ValueError as error:
        raise BundleError(f"{manifest} is not JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, _UNGUARDED_FORMAT):
        raise BundleError(f"{manifest} is not of format {FORMAT}; this software reads no other.")
    if content["format"] == _UNGUARDED_FORMAT:
        point = content.get("operating_point")
        content |= {"guard": None, "battery": None}
        content["operating_point"] = (
            {name: value for name, value in point.items() if name != "max_distance"}
            if isinstance(point, dict)
            else None
        )
    files = content.get("files", {})
    for name in _REQUIRED:
        if name not in files:
            raise BundleError(f"{manifest} names no {name}.")
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{manifest} names a file outside the bundle: {name}.")
        try:
            found = _sha256(folder / name)
        except OSError as error:
            raise BundleError(f"{folder / name} cannot be read: {error.strerror}.") from error
        if found != expected:
            raise BundleError(f"{folder / name} was altered: its sha256 is not that in {MANIFEST}.")
    try:
        description = _description(content)
        quantised = description.quantised
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{manifest} is incomplete: {error!r}.") from error
    if quantised and not {QUANTISED, f"{Path(QUANTISED).stem}.bin"} <= files.keys():
        raise BundleError(f"{manifest} is incomplete: it names no int8 network.")
    return Bundle(folder, hashlib.sha256(raw).hexdigest(), description)


def seal_bundle(folder: Path, description: Description) -> Bundle:
    """Write the manifest over the files that lie in `folder`, and open the result."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    content = {
        "format": FORMAT,
        **asdict(description),
        "files": {path.relative_to(folder).as_posix(): _sha256(path) for path in files},
    }
    (folder / MANIFEST).write_text(
        json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    return open_bundle(folder)


def _description(content: Mapping[str, Any]) -> Description:
    classes = tuple(ModelClass(item["name"], Code(**item["code"])) for item in content["classes"])
    if len(classes) < 2 or len({known.name for known in classes}) < len(classes):
        raise ValueError("at least two classes with different names are needed")
    lists: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content["preprocessing"].items()
    }
    return Description(
        name=str(content["name"]),
        version=str(content["version"]),
        architecture=str(content["architecture"]),
        classes=classes,
        preprocessing=Preprocessing(**lists),
        operating_point=OperatingPoint(**content["operating_point"]),
        temperature=float(content["temperature"]),
        metrics=content["metrics"],
        data=content["data"],
        command=str(content["command"]),
        parent=content.get("parent"),
        quantisation=content.get("quantisation"),
        guard=None if content["guard"] is None else _guard(content["guard"]),
        battery=content["battery"],
    )


def _guard(content: Mapping[str, Any]) -> Guard:
    if content["knows"] not in ("phantoms", "patients"):
        raise ValueError("a guard knows phantoms or patients")
    limits = content["limits"]
    if limits is not None:
        limits = {str(name): float(value) for name, value in limits.items()}
        if not all(math.isfinite(value) for value in limits.values()):
            raise ValueError("a limit is a number")
    patients = {str(name): int(count) for name, count in content["patients"].items()}
    return Guard(content["knows"], patients, limits, content["reproduces"] is True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
