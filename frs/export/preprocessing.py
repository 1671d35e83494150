"""The graph that turns an image of any size into the network's input, as mmdet's `Resize` and data preprocessor do."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from frs.detectors._mmdet_init import MIN_SIDE

import mmcv
import numpy as np
import onnx
from mmengine.model import BaseDataPreprocessor
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input."""

    size: tuple[int, int]
    """[width, height] in pixels that images are scaled into; the aspect ratio is kept. Portrait images are scaled into
    [height, width], as mmcv does, unless the size is fixed."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of each channel, in the network's order."""
    rgb: bool
    """Whether the network's channels are red, green, blue; otherwise blue, green, red."""
    divisor: int
    """The sides of the input are multiples of this number of pixels."""
    pad_value: float
    """Value of the pixels at the right and at the bottom that fill up the input, after normalisation."""
    fixed: bool
    """Whether every image is filled up to `size`, for runtimes that need one input size."""

    @property
    def padded_size(self) -> tuple[int, int]:
        """`size` rounded up to multiples of `divisor`."""
        return self.padded(self.size[0]), self.padded(self.size[1])

    def padded(self, side: int) -> int:
        """Return `side` rounded up to a multiple of `divisor`."""
        return -(-side // self.divisor) * self.divisor


def preprocessing_of(preprocessor: BaseDataPreprocessor, size: tuple[int, int], fixed: bool) -> Preprocessing:
    """Return the preprocessing of a detector's mmdet data preprocessor at an image size [width, height]."""
    normalises = getattr(preprocessor, "_enable_normalize", False)
    return Preprocessing(
        size=size,
        mean=tuple(preprocessor.mean.flatten().tolist()) if normalises else (0.0,) * 3,
        std=tuple(preprocessor.std.flatten().tolist()) if normalises else (1.0,) * 3,
        rgb=bool(getattr(preprocessor, "_channel_conversion", False)),  # mmdet loads images as BGR
        divisor=int(preprocessor.pad_size_divisor),
        pad_value=float(preprocessor.pad_value),
        fixed=fixed,
    )


def usual_size(images: Iterable[tuple[int, int]], size: tuple[int, int]) -> tuple[int, int]:
    """Return the [width, height] that most images have once mmdet has scaled them into `size`.

    `images` are [width, height] of images. A fixed input of this size pads them as little as training does: padding
    changes the statistics of group norms, and with them the scores.
    """
    [((width, height), _)] = Counter(mmcv.image.geometric.rescale_size(sides, size) for sides in images).most_common(1)
    return max(MIN_SIDE, width), max(MIN_SIDE, height)


def build_graph(preprocessing: Preprocessing) -> onnx.ModelProto:
    """Return a model from `image` (height, width, 3), RGB, uint8 to `pixels`, `content` and `scale`.

    For the outputs see `DetectorNetwork.forward`. OpenCV, which mmdet resizes with, interpolates in fixed point and
    rounds to whole numbers; here the exact values are rounded, so that single pixels can differ by 1.
    """
    width, height = preprocessing.size
    graph = _Graph()
    node, constant = graph.node, graph.constant
    sides = node("Cast", node("Slice", node("Shape", "image"), constant([0]), constant([2])), to=TensorProto.DOUBLE)
    if preprocessing.fixed:  # fits into the frame
        factors = node("Div", constant([height, width], np.float64), sides)
    else:  # as mmcv.imrescale: the longer side into the longer one
        ordered = node("Concat", node("ReduceMax", sides, keepdims=1), node("ReduceMin", sides, keepdims=1), axis=0)
        factors = node("Div", constant([max(width, height), min(width, height)], np.float64), ordered)
    factor = node("ReduceMin", factors, keepdims=1)
    scaled = node("Add", node("Mul", sides, factor), constant([0.5], np.float64))
    whole = node("Cast", scaled, to=TensorProto.INT64)  # rounds towards 0, as int() in mmcv.imrescale
    content = node("Max", whole, constant([MIN_SIDE]))
    node("Cast", content, to=TensorProto.FLOAT, output="content")
    ratio = node("Cast", node("Div", node("Cast", content, to=TensorProto.DOUBLE), sides), to=TensorProto.FLOAT)
    node("Gather", ratio, constant([1, 0]), output="scale")

    channels = node("Transpose", node("Cast", "image", to=TensorProto.FLOAT), perm=[2, 0, 1])
    batch = node("Unsqueeze", channels, constant([0]))
    sizes = node("Concat", constant([1, 3]), content, axis=0)
    resized = node(
        "Resize", batch, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel", antialias=0
    )
    rounded = node("Floor", node("Add", resized, constant([0.5], np.float32)))
    if not preprocessing.rgb:
        rounded = node("Gather", rounded, constant([2, 1, 0]), axis=1)
    normalised = node(
        "Div", node("Sub", rounded, graph.per_channel(preprocessing.mean)), graph.per_channel(preprocessing.std)
    )
    if preprocessing.fixed:
        padded = constant(preprocessing.padded_size[::-1])
    else:
        divisor = constant([preprocessing.divisor])
        steps = node("Div", node("Add", content, constant([preprocessing.divisor - 1])), divisor)
        padded = node("Mul", steps, divisor)
    amounts = node("Concat", constant([0] * 6), node("Sub", padded, content), axis=0)
    node("Pad", normalised, amounts, constant(preprocessing.pad_value, np.float32), output="pixels")
    return graph.model()


class _Graph:
    """A list of ONNX nodes that names its tensors itself."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"preprocess/{output}", **attributes))
        return output

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def per_channel(self, values: tuple[float, ...]) -> str:
        """Add a constant for each channel: one number if all are equal, which is ten times as fast in INT8 files."""
        shape = () if len(set(values)) == 1 else (1, 3, 1, 1)
        return self.constant(np.reshape(values[:1] if shape == () else values, shape), np.float32)

    def model(self) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])
        shapes: dict[str, list[str | int | None]] = {
            "pixels": [1, 3, "padded_height", "padded_width"],
            "content": [2],
            "scale": [2],
        }
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
        graph = helper.make_graph(self.nodes, "preprocess", [image], outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
