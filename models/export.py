"""From a trained network (torch) to the files of a bundle."""

from pathlib import Path

import openvino
import torch
from openvino.preprocess import PrePostProcessor
from safetensors.torch import save_file

from models.architectures import HounsfieldClassifier
from models.bundle import NETWORK, WEIGHTS
from models.preprocessing import Preprocessing


def export_network(network: torch.nn.Module, preprocessing: Preprocessing, folder: Path) -> None:
    """Write the OpenVINO IR and the weights, both in fp16, to `folder`.

    The IR takes Hounsfield units, int16 of shape (1, 1, size, size), and gives probabilities (1, classes).
    """
    network = network.eval().float()
    model = torch.nn.Sequential(HounsfieldClassifier(network, preprocessing), torch.nn.Softmax(dim=1)).eval()
    shape = (1, 1, preprocessing.size, preprocessing.size)
    program = torch.export.export(model, (torch.zeros(shape),))
    exported = openvino.convert_model(program)
    exported.reshape(shape)
    steps = PrePostProcessor(exported)
    steps.input().tensor().set_element_type(openvino.Type.i16)
    exported = steps.build()
    exported.input().set_names({"hounsfield"})
    exported.output().set_names({"probabilities"})
    openvino.save_model(exported, folder / NETWORK, compress_to_fp16=True)
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it readable for its owner alone
