"""Write a small U-Net as an ONNX file: `python make_segmentation_model.py FILE [SIDE]`.

Its weights are random and always the same. Without a side, the network takes any multiple of 8.
"""

import sys
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

POOLINGS = 3
CHANNELS = 8


def u_net(side: int | None = None) -> onnx.ModelProto:
    """Return a network from `pixels` (1, 2, row, col) to `score` (1, 1, row, col), float32."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(kind: str, *inputs: str, **settings: Any) -> str:
        nodes.append(helper.make_node(kind, [*inputs], [f"{kind}{len(nodes)}"], **settings))
        return str(nodes[-1].output[0])

    def constant(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values, name))
        return name

    def convolved(x: str, before: int, after: int = CHANNELS) -> str:
        kernel = random.normal(0, (2 / before) ** 0.5 / 3, (after, before, 3, 3))
        weight = constant(f"kernel{len(weights)}", kernel.astype(np.float32))
        return add("Relu", add("Conv", x, weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))

    twice = constant("twice", np.array([1, 1, 2, 2], np.float32))
    x, skipped = convolved("pixels", 2), []
    for _ in range(POOLINGS):
        skipped.append(x)
        x = convolved(add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), CHANNELS)
    for before in reversed(skipped):
        x = add("Concat", add("Resize", x, "", twice, mode="nearest"), before, axis=1)
        x = convolved(x, 2 * CHANNELS)
    last = constant("last", random.normal(0, 0.2, (1, CHANNELS, 1, 1)).astype(np.float32))
    nodes.append(helper.make_node("Sigmoid", [add("Conv", x, last)], ["score"]))

    def image(name: str, bands: int) -> onnx.ValueInfoProto:
        shape = [1, bands, side or "rows", side or "cols"]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(nodes, "u-net", [image("pixels", 2)], [image("score", 1)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    onnx.save(u_net(int(sys.argv[2]) if len(sys.argv) > 2 else None), sys.argv[1])
