"""From a trained network (torch) to the files of a bundle."""

from pathlib import Path

import openvino
import torch
from openvino.preprocess import PrePostProcessor
from safetensors.torch import save_file
from torch import Tensor, nn

from models.architectures import FeaturesOf, FoldedClassifier, HounsfieldClassifier
from models.bundle import NETWORK, WEIGHTS
from models.preprocessing import Preprocessing


class _Outputs(nn.Module):
    """Calibrated probabilities and the features that they rest on."""

    def __init__(self, model: HounsfieldClassifier | FoldedClassifier, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, hounsfield: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features(hounsfield)
        return torch.softmax(self.model.head(features) / self.temperature, dim=1), features


def export_network(network: nn.Module, preprocessing: Preprocessing, temperature: float, folder: Path) -> None:
    """Write the OpenVINO IR and the weights, both in fp16, to `folder`.

    The IR takes Hounsfield units, int16 of shape (1, 1, size, size), and gives probabilities (1, classes), the
    logits divided by `temperature` before (Guo et al., ICML 2017), and features (1, features).
    """
    network = network.eval().float()
    exported = _converted(_Outputs(FoldedClassifier(network, preprocessing), temperature), preprocessing.size)
    exported.outputs[0].set_names({"probabilities"})
    exported.outputs[1].set_names({"features"})
    openvino.save_model(exported, folder / NETWORK, compress_to_fp16=True)
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it readable for its owner alone


def feature_network(network: nn.Module, preprocessing: Preprocessing) -> openvino.Model:
    """Return all but the last layer as an OpenVINO model: int16 (1, 1, size, size) in HU to features (1, features)."""
    model = HounsfieldClassifier(network.eval().float(), preprocessing)
    return _converted(FeaturesOf(model), preprocessing.size)


def _converted(model: nn.Module, size: int) -> openvino.Model:
    program = torch.export.export(model.eval(), (torch.zeros(1, 1, size, size),))
    converted = openvino.convert_model(program)
    converted.reshape((1, 1, size, size))
    steps = PrePostProcessor(converted)
    steps.input().tensor().set_element_type(openvino.Type.i16)
    converted = steps.build()
    converted.input().set_names({"hounsfield"})
    return converted
