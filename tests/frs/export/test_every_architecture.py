"""The exported file of every architecture, trained briefly on photographs, has the student's boxes."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import ARCHITECTURES, of

from frs import events
from frs.engine import stages
from frs.evaluation.export_report import ExportReport
from frs.resolved import resolve
from frs.spec import JobSpec
from frs.training.stop_request import StopRequest

IMAGES = 20
SIZE = [160, 120]
CSP = {"deepen_factor": 0.167, "widen_factor": 0.25}
BACKBONES: dict[str, Any] = {
    "gfl": {"type": "tf_efficientnet_lite0"},
    "rtmdet": {"type": "CSPNeXt", **CSP},
    "yolox": {"type": "CSPDarknet", **CSP},
}
RESNET = {"depth": 18, "width": 16, "norm": "gn"}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("FRS_TEST_DATA" not in os.environ, reason="FRS_TEST_DATA is not set"),
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of data sets: BCCD with 20 validation images."""
    root = tmp_path_factory.mktemp("photographs")
    shutil.copytree(Path(os.environ["FRS_TEST_DATA"]) / "bccd", root / "bccd")
    annotations = root / "bccd" / "annotations" / "instances_val.json"
    coco = json.loads(annotations.read_text())
    coco["images"] = coco["images"][:IMAGES]
    kept = {image["id"] for image in coco["images"]}
    coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] in kept]
    annotations.write_text(json.dumps(coco))
    return root


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_exported_boxes_are_the_students(architecture: str, photographs: Path, tmp_path: Path) -> None:
    student = {
        "architecture": architecture,
        "backbone": BACKBONES.get(architecture, RESNET),
        "neck_channels": 48 if architecture in ("rtmdet", "yolox") else 32,
        "stacked_convs": 1,
    }
    emitted: list[events.Event] = []

    def run(fields: dict[str, Any], folder: str) -> None:
        spec = resolve(JobSpec.model_validate({"dataset": "bccd"} | fields), photographs, tmp_path)
        assert stages.run(spec, tmp_path / folder, emitted.append, StopRequest()) == "completed"

    epochs = 12 if architecture == "rtmdet" else 6  # a score of 0.3 takes RTMDet longer
    optimizer = {"name": "adamw", "learning_rate": 0.004 if architecture == "rtmdet" else 0.001}
    schedule = {"image_size": SIZE, "epochs": epochs, "batch_size": 8, "evaluate_every": epochs, "max_grad_norm": 10}
    run({"kind": "train", "student": student, "schedule": schedule | {"optimizer": optimizer}}, "trained")
    [last] = [event for event in of(events.Checkpoint, emitted) if "last" in event.labels]
    weights = {"init": {"weights": f"trained/{last.path}"}}
    formats = ["onnx"] if architecture == "faster_rcnn" else ["onnx", "onnx-no-nms"]
    run({"kind": "export", "student": student | weights, "export": {"formats": formats}}, "exported")
    report = ExportReport.model_validate_json((tmp_path / "exported" / "export" / "export.json").read_bytes())
    assert report.images == IMAGES
    assert report.image_size == tuple(SIZE)  # from the weights file
    assert [file.format for file in report.files] == formats
    for file in report.files:
        assert file.compared >= IMAGES
        assert (file.passed, file.missing, file.equal) == (True, 0, file.compared)
