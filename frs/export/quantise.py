"""Static quantisation to INT8 with onnxruntime: QDQ, weights per channel, ranges from calibration images."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, qdq_loss_debug, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from frs.evaluation.export_report import LayerLoss
from frs.export.frs_runner import load_image

WORST_LAYERS = 10
LAYERS = ("Conv", "Gemm")
"""The operators with weights."""
QUANTISED_OPERATORS = (*LAYERS, "Add", "Relu", "Clip", "MaxPool")
"""Operators that run on integers between layers. Around others, tensors are converted to fp32 and back."""
_FEATURES: dict[str, Sequence[int]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), (0, 1)),
    **dict.fromkeys(("ScatterND", "ScatterElements"), (0, 2)),
    **dict.fromkeys(("Shape", "ConstantOfShape"), ()),
}
"""Positions of the inputs that hold features, for operators where it is not the first alone."""
Image = NDArray[np.uint8]


class _Images(CalibrationDataReader):
    """Calibration images in the form that onnxruntime reads."""

    def __init__(self, paths: Sequence[Path], progress: Callable[[int, int], None]) -> None:
        self.paths, self.progress, self.position = paths, progress, 0

    def get_next(self) -> dict[str, Image] | None:
        if self.position == len(self.paths):
            return None
        image = load_image(self.paths[self.position])
        self.position += 1
        self.progress(self.position, len(self.paths))
        return {"image": image}


def quantise(source: Path, target: Path, images: Sequence[Path], progress: Callable[[int, int], None]) -> None:
    """Write the INT8 model of the fp32 model `source`. `images` give the ranges of the activations."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Images(images, progress),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED_OPERATORS),
            nodes_to_exclude=nodes_outside_the_network(onnx.load(prepared)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    model = onnx.load(target)
    metadata = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(model, metadata | {"format": '"onnx-int8"'})
    target.write_bytes(model.SerializeToString(deterministic=True))


def worst_layers(source: Path, quantised: Path, images: Sequence[Path]) -> list[LayerLoss]:
    """Return the tensors in which the quantised model differs most from `source` on the images, the worst first."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        prepared, activations = Path(folder) / "prepared.onnx", []
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        for model in (prepared, quantised):
            extended = Path(folder) / f"extended-{model.name}"
            qdq_loss_debug.modify_model_output_intermediate_tensors(
                str(model), str(extended), op_types_for_saving=LAYERS
            )
            reader = _Images(images, lambda done, total: None)
            activations.append(qdq_loss_debug.collect_activations(str(extended), reader))
    pairs = qdq_loss_debug.create_activation_matching(activations[1], activations[0])
    errors = qdq_loss_debug.compute_activation_error(pairs)
    losses = [
        LayerLoss(tensor=name, signal_to_noise=float(error["xmodel_err"]))
        for name, error in errors.items()
        if "xmodel_err" in error and np.isfinite(error["xmodel_err"])
    ]
    return sorted(losses, key=lambda loss: loss.signal_to_noise)[:WORST_LAYERS]


def nodes_outside_the_network(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes of pre- and post-processing, which stay in fp32.

    Coordinates of boxes, proposals and sampling points do not fit into 256 values. The network is the layers, and what
    computes the features that they take.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    inside: set[str] = set()
    pending = [node for node in model.graph.node if node.op_type in LAYERS]
    while pending:
        node = pending.pop()
        if node.name in inside or node.name.startswith("preprocess/"):
            continue
        inside.add(node.name)
        positions = range(len(node.input)) if node.op_type == "Concat" else _FEATURES.get(node.op_type, (0,))
        features = [node.input[position] for position in positions if position < len(node.input)]
        pending += [producers[name] for name in features if name in producers]
    return [node.name for node in model.graph.node if node.name not in inside]
