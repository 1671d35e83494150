"""Write a detector as one ONNX file that takes an image and returns its boxes."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import onnx
import torch
from onnx import compose
from torch import nn

from frs.detectors.heads import Detector, dense_head
from frs.errors import ExportUnsupported
from frs.export.candidates import CandidateNetwork
from frs.export.deformable import sampled_deform_conv
from frs.export.levels import UNCLIPPED, decode_centres, decoder_of
from frs.export.network import DetectorNetwork
from frs.export.padding import fix_padding
from frs.export.preprocessing import IR_VERSION, OPSET, Preprocessing, build_graph

INPUTS, OUTPUTS = ("pixels", "content", "scale"), ("boxes", "scores", "labels")
MAX_SIDE = 8192
"""Longest side of an input of a file without a fixed size, in pixels."""
MAX_BATCH = 1024
"""Most images in an input of a file without NMS."""


def build_model(detector: Detector, preprocessing: Preprocessing, metadata: Mapping[str, object]) -> onnx.ModelProto:
    """Return the model `image` (height, width, 3), uint8, RGB -> `boxes` (D, 4), `scores` (D,), `labels` (D,).

    Boxes are x1, y1, x2, y2 in pixels of the image, highest scores first. `metadata` becomes the model's, each value as
    JSON. Raises ExportUnsupported if the detector cannot be exported.
    """
    detector = _prepared(detector)
    program = _trace(
        DetectorNetwork(detector),
        _example(preprocessing),
        None if preprocessing.fixed else _dynamic_shapes(preprocessing.divisor),
        INPUTS,
        OUTPUTS,
    )
    return _with_metadata(_merge(build_graph(preprocessing), program), metadata)


def build_candidates_model(
    detector: Detector, preprocessing: Preprocessing, metadata: Mapping[str, object]
) -> onnx.ModelProto:
    """Return the model `images` (B, 3, H, W), fp32, RGB, 0 to 255 -> `boxes` (B, P, 4), `scores` (B, P, K).

    For B images of `preprocessing.padded_size`, of TOOD for one; see `CandidateNetwork`. The metadata has what is left
    to do: the colour that fills up an image, thresholds, the number of boxes. Raises ExportUnsupported.
    """
    detector = _prepared(detector)
    network = CandidateNetwork(detector, preprocessing)
    width, height = preprocessing.padded_size
    images = 255 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    shapes = {"images": {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}}
    names = ("images",), ("boxes", "scores")
    program = _trace(network, (images,), shapes, *names)
    if not program.graph.input[0].type.tensor_type.shape.dim[0].dim_param:  # TOOD's head loops over its images
        program = _trace(network, (images[:1],), None, *names)
    return _with_metadata(program, {**metadata, **post_processing(detector, preprocessing)})


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write the model, so that equal models give equal files."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def _prepared(detector: Detector) -> Detector:
    detector = copy.deepcopy(detector).cpu()
    fix_padding(detector)
    return detector


def _trace(
    network: nn.Module,
    example: tuple[torch.Tensor, ...],
    dynamic_shapes: dict[str, Any] | None,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    try:
        with sampled_deform_conv(), torch.no_grad():
            program = torch.onnx.export(
                network,
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic_shapes,
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
    except Exception as error:  # torch.export raises many types, and most texts are pages long
        name = type(network.detector).__name__
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ExportUnsupported(f"{name} cannot be exported: {type(error).__name__}: {reason[:300]}") from error
    assert program is not None
    return program.model_proto


def _with_metadata(model: onnx.ModelProto, metadata: Mapping[str, object]) -> onnx.ModelProto:
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    return model


def post_processing(detector: Detector, preprocessing: Preprocessing) -> dict[str, object]:
    """Return what `frs_runner.py` needs for the images and boxes of a file without NMS."""
    head = dense_head(detector)
    config, decode = head.test_cfg, decoder_of(head)
    pad = [
        preprocessing.pad_value * std + mean for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)
    ]
    return {
        "format": "onnx-no-nms",
        "scaled_size": preprocessing.size,
        "input_size": preprocessing.padded_size,
        "pad": pad if preprocessing.rgb else pad[::-1],
        "score_threshold": config.score_thr,
        "iou_threshold": config.nms.iou_threshold,
        "max_detections": config.get("max_per_img", config.nms.get("max_num", -1)),
        "best_class_only": decode is decode_centres,
        "clip": decode not in UNCLIPPED,
    }


def _example(preprocessing: Preprocessing) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return inputs for tracing: noise of the padded size."""
    width, height = preprocessing.padded_size
    pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    return pixels, torch.tensor([float(height), float(width)]), torch.ones(2)


def _dynamic_shapes(divisor: int) -> dict[str, Any]:
    """Return the sides of the input as multiples of `divisor`."""
    rows, columns = (torch.export.Dim(name, min=1, max=MAX_SIDE // divisor) for name in ("rows", "columns"))
    sides = {2: rows, 3: columns} if divisor == 1 else {2: divisor * rows, 3: divisor * columns}
    return {"pixels": sides, "content": None, "scale": None}


def _merge(preprocess: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """Return one model of the two, one after the other."""
    network.ir_version = IR_VERSION
    preprocess = compose.add_prefix(preprocess, "preprocess/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(preprocess, network, io_map=[(name, name) for name in INPUTS])
    del merged.opset_import[:]
    merged.opset_import.append(onnx.helper.make_opsetid("", OPSET))  # otherwise listed twice, which quantisers refuse
    return merged
