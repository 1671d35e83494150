"""Write a detector as one ONNX file that takes an image and returns its boxes."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import onnx
import torch
from onnx import compose

from frs.detectors.heads import Detector
from frs.errors import ExportUnsupported
from frs.export.deformable import sampled_deform_conv
from frs.export.network import DetectorNetwork
from frs.export.padding import fix_padding
from frs.export.preprocessing import IR_VERSION, OPSET, Preprocessing, build_graph

INPUTS, OUTPUTS = ("pixels", "content", "scale"), ("boxes", "scores", "labels")
MAX_SIDE = 8192
"""Longest side of an input of a file without a fixed size, in pixels."""


def build_model(detector: Detector, preprocessing: Preprocessing, metadata: Mapping[str, object]) -> onnx.ModelProto:
    """Return the model `image` (height, width, 3), uint8, RGB -> `boxes` (D, 4), `scores` (D,), `labels` (D,).

    Boxes are x1, y1, x2, y2 in pixels of the image, highest scores first. `metadata` becomes the model's, each value as
    JSON. Raises ExportUnsupported if the detector cannot be exported.
    """
    detector = copy.deepcopy(detector).cpu()
    fix_padding(detector)
    network = DetectorNetwork(detector)
    pixels, content, scale = _example(preprocessing)
    try:
        with sampled_deform_conv(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (pixels, content, scale),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=None if preprocessing.fixed else _dynamic_shapes(preprocessing.divisor),
                input_names=INPUTS,
                output_names=OUTPUTS,
                verbose=False,
            )
    except Exception as error:  # torch.export raises many types, and most texts are pages long
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ExportUnsupported(
            f"{type(detector).__name__} cannot be exported: {type(error).__name__}: {reason[:300]}"
        ) from error
    assert program is not None
    merged = _merge(build_graph(preprocessing), program.model_proto)
    del merged.metadata_props[:]
    onnx.helper.set_model_props(merged, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(merged)
    return merged


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write the model, so that equal models give equal files."""
    path.write_bytes(model.SerializeToString(deterministic=True))


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
