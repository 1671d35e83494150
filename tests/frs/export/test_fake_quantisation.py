"""Fake quantisation computes what onnxruntime computes from the INT8 file."""

from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.structures import DetDataSample
from numpy.typing import NDArray
from onnx import helper
from tiny import described
from torch.utils._pytree import tree_leaves

from frs.detector_spec import DescribedDetector
from frs.detectors import builder
from frs.detectors.heads import Detector, dense_head
from frs.export import onnx_file, quantise
from frs.export.frs_runner import load_image
from frs.export.preprocessing import preprocessing_of
from frs.training.fake_quantisation import FakeQuantiser, round_activation, round_weight

SIZE = (96, 96)
"""Size of the drawn images: neither the file nor the test scales them."""
CASES = {
    "gfl, group norms": described("gfl"),
    "gfl, residual additions": described("gfl", backbone={"depth": 18, "width": 8}),
}
SLOW = {
    "faster_rcnn": described("faster_rcnn"),
    "retinanet, ReLU6 and depthwise": described("retinanet", backbone={"type": "tf_efficientnet_lite0"}),
    "rtmdet, SiLU": described("rtmdet", backbone={"type": "CSPNeXt", "widen_factor": 0.125}),
    "fcos, MobileNetV2": described("fcos", backbone={"type": "MobileNetV2", "widen_factor": 0.25}),
}


def images_of(data: Path, split: str) -> list[Path]:
    return sorted((data / "tiny" / split).iterdir())


def batch(image: Path) -> dict[str, Any]:
    """Return the raw batch of an image as it is loaded for training: BGR."""
    sample = DetDataSample()
    sample.set_metainfo({"img_shape": SIZE, "ori_shape": SIZE, "scale_factor": (1.0, 1.0), "img_id": 0})
    pixels = torch.from_numpy(load_image(image)[:, :, ::-1].copy())
    return {"inputs": [pixels.permute(2, 0, 1)], "data_samples": [sample]}


def layer_outputs(model: Path, image: Path) -> list[NDArray[np.float32]]:
    """Return what the layers of a file compute, in the order of execution, rounded where the file rounds it."""
    loaded = onnx.load(model)
    tensors = {name for node in loaded.graph.node for name in node.output}
    names = [node.output[0] for node in loaded.graph.node if node.op_type in quantise.LAYERS]
    names = [rounded if (rounded := f"{name}_DequantizeLinear_Output") in tensors else name for name in names]
    loaded.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(loaded.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(names, {"image": load_image(image)}))


def head_outputs(detector: Detector, image: Path) -> list[torch.Tensor]:
    with torch.no_grad():
        pixels = detector.data_preprocessor(batch(image), False)["inputs"]
        return [*tree_leaves(dense_head(detector)(detector.extract_feat(pixels)))]


@pytest.mark.parametrize(
    "description", [*CASES.values(), *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW.values())],
    ids=[*CASES, *SLOW],
)  # fmt: skip
def test_a_rounded_detector_computes_what_its_int8_file_computes(
    description: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    detector = builder.build(DescribedDetector.model_validate(description), 4, tmp_path).eval()
    fp32, int8 = tmp_path / "student.onnx", tmp_path / "student-int8.onnx"
    preprocessing = preprocessing_of(detector.data_preprocessor, SIZE, False)
    onnx_file.write(onnx_file.build_model(detector, preprocessing, {"classes": list("abcd")}), fp32)
    images, [unseen, *_] = images_of(data, "train")[:6], images_of(data, "val")
    quantise.quantise(fp32, int8, images, lambda done, total: None)
    plain = head_outputs(detector, unseen)
    quantiser = FakeQuantiser(detector)
    quantiser.ranges = quantiser.measure(map(batch, images), lambda done: None)
    rounded = head_outputs(detector.train(), unseen)
    computed = layer_outputs(int8, unseen)
    errors, losses = [], []
    for before, after in zip(plain, rounded, strict=True):
        file = min((x for x in computed if x.shape == after.shape), key=lambda x: np.abs(x - after.numpy()).mean())
        errors.append(float(np.abs(file - after.numpy()).mean() / before.std()))
        losses.append(float(np.abs(file - before.numpy()).mean() / before.std()))
    assert np.median(losses) > 0.01  # rounding matters
    assert np.median(errors) < 0.1 * np.median(losses)


def test_weights_are_rounded_for_each_output_channel() -> None:
    weight = torch.tensor([[0.5, -1.0], [100.0, 0.3], [0.0, 0.0]], requires_grad=True)
    rounded = round_weight(weight)
    expected = [[64 / 127, -1.0], [100.0, 0.0], [0.0, 0.0]]
    torch.testing.assert_close(rounded, torch.tensor(expected))
    rounded.sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.ones(3, 2))


def test_a_scale_of_a_batch_norm_changes_no_rounding() -> None:
    weight, scale = torch.randn(8, 4, 3, 3), torch.randn(8, 1, 1, 1)
    torch.testing.assert_close(round_weight(scale * weight), scale * round_weight(weight))


def test_activations_are_rounded_within_their_range_and_pass_gradients_there() -> None:
    tensor = torch.tensor([-3.0, -1.0, 0.0, 0.0049, 1.55, 9.0], requires_grad=True)
    rounded = round_activation(tensor, (-1.0, 1.55))
    torch.testing.assert_close(rounded, torch.tensor([-1.0, -1.0, 0.0, 0.0, 1.55, 1.55]))
    rounded.sum().backward()
    assert tensor.grad is not None
    torch.testing.assert_close(tensor.grad, torch.tensor([0.0, 1, 1, 1, 1, 0]))


@pytest.mark.parametrize("limits", [(0.0, 0.0), (2.0, 4.0), (-4.0, -2.0)])
def test_zero_is_always_one_of_the_values(limits: tuple[float, float]) -> None:
    assert round_activation(torch.zeros(1), limits).item() == 0
