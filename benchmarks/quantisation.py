"""What quantisation-aware training regains: INT8 mAP before and after it, of a detector whose plain INT8 file is bad.

    python benchmarks/quantisation.py FOLDER [--factor 60]

The detector is that of the recipe `shapes_gfl`'s teacher. In every residual block, two channels between the two
convolutions are scaled by `factor`, and the second convolution's weights by its inverse. In fp32 nothing changes; in
INT8 the other channels of the tensor share the steps that these two need.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

from torch import Tensor

from frs import events
from frs.dataset.shapes.drawing import draw_dataset
from frs.detectors import weights
from frs.engine import stages
from frs.engine.trainer import silence_libraries
from frs.evaluation.export_report import ExportReport
from frs.export.stage import describe_drop
from frs.resolved import resolve
from frs.spec import JobSpec
from frs.training.stop_request import StopRequest

CHANNELS = 2
SIDE = 128
STUDENT = {"architecture": "gfl", "backbone": {"depth": 18, "width": 16}, "neck_channels": 48, "stacked_convs": 2}
[SOURCE] = (Path(stages.__file__).parents[1] / "recipes" / "weights").glob("shapes_teacher-*.pth")


def main() -> None:
    """Print the loss of the INT8 file before and after kind `quantize`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--factor", type=float, default=60)
    parser.add_argument("--images", type=int, default=400, help="training images; half as many to validate")
    options = parser.parse_args()
    silence_libraries()
    options.folder.mkdir(parents=True)
    draw_dataset(options.folder / "shapes", train=options.images, val=options.images // 2, size=SIDE)
    content = weights.read(SOURCE)
    content["state_dict"] = spread(content["state_dict"], options.factor)
    weights.write(content, options.folder / "before.pth")
    print("before:", export(options.folder, "before.pth"))
    emitted = run(options.folder, "quantize", "before.pth", {"batch_size": 8, "image_size": [SIDE, SIDE]})
    [last] = [e for e in emitted if isinstance(e, events.Checkpoint) and e.kind == "student" and "last" in e.labels]
    weights.write_bytes((options.folder / "quantize" / last.path).read_bytes(), options.folder / "after.pth")
    print("after:", export(options.folder, "after.pth"))


def spread(state: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Return equal weights whose residual blocks have two channels with values `factor` times as large."""
    spread = {name: tensor.clone() for name, tensor in state.items()}
    for block in {
        name.removesuffix("bn1.weight") for name in state if ".layer" in name and name.endswith("bn1.weight")
    }:
        for name in ("bn1.weight", "bn1.bias"):
            spread[block + name][:CHANNELS] *= factor
        spread[block + "conv2.weight"][:, :CHANNELS] /= factor
    return spread


def export(folder: Path, name: str) -> str:
    """Return the student's mAP and the sentence about the loss of its INT8 file."""
    run(folder, "export", name, {"image_size": [SIDE, SIDE]})
    report = ExportReport.model_validate_json((folder / "export" / "export" / "export.json").read_bytes())
    [int8] = [file for file in report.files if file.format == "onnx-int8"]
    values = (100 * (scores["bbox_mAP"] or 0) for scores in (report.metrics, int8.metrics))
    return "mAP {:.1f} in fp32, {:.1f} in INT8. ".format(*values) + describe_drop(int8)


def run(folder: Path, kind: str, name: str, schedule: dict[str, Any]) -> list[events.Event]:
    """Run a job of this kind on the weights file `name` in the folder and return its events."""
    student = STUDENT | {"init": {"weights": name}}
    job = JobSpec.model_validate({"kind": kind, "dataset": "shapes", "student": student, "schedule": schedule})
    emitted: list[events.Event] = []
    stages.run(resolve(job, folder, folder), folder / kind, emitted.append, StopRequest())
    return emitted


if __name__ == "__main__":
    main()
