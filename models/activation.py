"""The class activation map (Zhou et al., CVPR 2016): where in a slice the evidence for each class comes from.

With a global mean and a linear layer at its end, a network's logit of a class is the mean of a map: the last feature
layer, weighted as the linear layer weighs it. No gradient is needed, and the map is exact.
"""

from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as opset

# What stands between the pooled features and the linear layer without changing any value.
_SHAPING = frozenset({"Reshape", "Squeeze", "Convert", "Flatten"})
_LONGEST = 16


def add_activation(network: openvino.Model) -> bool:
    """Add the maps (1, classes, height, width) as the last output; False where the network has no such end.

    The first output must be probabilities: softmax of a linear layer, perhaps divided by a temperature.
    """
    linear = _above(network.output(0).get_node(), "MatMul")
    if linear is None or linear.get_attributes().get("transpose_a"):
        return False
    weights = _constant(linear.input_value(1).get_node())
    pooled = linear.input_value(0).get_node()
    for _ in range(_LONGEST):
        if pooled.get_type_name() not in _SHAPING:
            break
        pooled = pooled.input_value(0).get_node()
    if weights is None or pooled.get_type_name() != "ReduceMean":
        return False
    features = pooled.input_value(0)
    if features.get_partial_shape().rank.get_length() != 4:
        return False
    if not linear.get_attributes().get("transpose_b"):
        weights = weights.T
    kernel = opset.constant(np.ascontiguousarray(weights[:, :, None, None], dtype=np.float32))
    maps = opset.convolution(features, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    network.add_outputs(maps.output(0))
    network.validate_nodes_and_infer_types()
    return True


def contrast(maps: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Return the map of one class against the others, of maps (classes, height, width).

    What speaks for all classes alike changes no probability, and is taken out.
    """
    others = np.delete(maps, index, axis=0).mean(axis=0)
    return np.asarray(maps[index] - others, dtype=np.float32)


def _above(node: Any, kind: str) -> Any:
    """Return the nearest node of a kind on the way up; None where there is none."""
    for _ in range(_LONGEST):
        if node.get_type_name() == kind:
            return node
        if not node.inputs():
            return None
        node = node.input_value(0).get_node()
    return None


def _constant(node: Any) -> NDArray[np.float32] | None:
    """Return the values of a constant, which may be kept in half precision."""
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.array(node.data, dtype=np.float32) if node.get_type_name() == "Constant" else None
