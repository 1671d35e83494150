"""The student's files work without this package: plain mmdet, with our operators only, gets the same metrics."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from mmengine.config import Config
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.detector_spec import DescribedDetector
from frs.detectors import builder, weights
from frs.detectors.weights import SavedFile
from frs.engine.student_files import StudentWriter
from frs.resolved import SplitFiles
from frs.training import batches

MMDET_ONLY = """
import json, sys
import mmcv_torchvision
import mmdet.utils
import numpy as np, torch
from faster_coco_eval import COCO, COCOeval_faster
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmdet.registry import DATASETS, MODELS

config_file, weights_file, data_root = sys.argv[1:]
mmdet.utils.register_all_modules()
config = Config.fromfile(config_file)
detector = MODELS.build(config.model)
content = torch.load(weights_file, weights_only=True)
detector.load_state_dict(content["state_dict"], strict=True)
detector.eval()
config.test_dataloader.dataset.data_root = data_root
dataset = DATASETS.build(config.test_dataloader.dataset)
rows = []
with torch.no_grad():
    for index in range(len(dataset)):
        [sample] = detector.test_step(pseudo_collate([dataset[index]]))
        instances = sample.pred_instances
        columns = [instances[name].double().numpy() for name in ("bboxes", "scores", "labels")]
        for (left, top, right, bottom), score, label in zip(*columns):
            category = dataset.cat_ids[int(label)]
            rows.append([sample.img_id, left, top, right - left, bottom - top, score, category])
truth = COCO(f"{data_root}/{config.test_dataloader.dataset.ann_file}")
results = truth.loadRes(np.array(rows).reshape(-1, 7))
evaluation = COCOeval_faster(truth, results, "bbox", print_function=lambda *_: None)
evaluation.run()
imported = [name for name in sys.modules if name.split(".")[0] in ("frs", "store", "worker", "api", "cli")]
classes = content["meta"]["dataset_meta"]["classes"]
stats = list(evaluation.stats[:6])
print(json.dumps({"stats": stats, "classes": classes, "imported": imported, "detections": len(rows)}))
"""


def result_files(workdir: Path, emitted: list[events.Event]) -> dict[str, Path]:
    last = [event for event in of(events.Checkpoint, emitted) if "last" in event.labels][0]
    files = {event.name: workdir / event.path for event in of(events.Artifact, emitted)}
    return files | {"student.pth": workdir / last.path}


CSP_FACTORS = {"deepen_factor": 0.167, "widen_factor": 0.125}
BACKBONES = {
    "gfl": {"backbone": {"type": "tf_efficientnet_lite0"}},
    "rtmdet": {"backbone": {"type": "CSPNeXt", **CSP_FACTORS}},
    "yolox": {"backbone": {"type": "CSPDarknet", **CSP_FACTORS}},
}
"""Backbones that are no ResNet: one of timm, and those that RTMDet and YOLOX ship with."""
GFL_IN_MAKE_TEST = [name if name == "gfl" else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]


@pytest.mark.parametrize("architecture", GFL_IN_MAKE_TEST)
def test_plain_mmdet_gets_the_same_metrics_for_the_student(
    train: Train, data: Path, tmp_path: Path, architecture: str
) -> None:
    # the scores of an untrained YOLOX, class x objectness, are 0.0001: it needs a higher rate to detect anything
    optimizer = {"name": "adamw", "learning_rate": 0.005 if architecture == "yolox" else 0.001}
    schedule = {"epochs": 15, "evaluate_every": 15, "optimizer": optimizer}
    student = described(architecture, **BACKBONES.get(architecture, {}))
    emitted = train(job(kind="train", teacher=None, student=student, schedule=schedule))
    files = result_files(tmp_path / "run", emitted)
    command = [sys.executable, "-c", MMDET_ONLY, files["student-config.py"], files["student.pth"], data / "tiny"]
    completed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert completed.returncode == 0, completed.stderr[-3000:]
    output = json.loads(completed.stdout.splitlines()[-1])
    evaluation = of(events.Evaluation, emitted)[-1]
    metrics = evaluation.metrics
    assert output["detections"] == evaluation.detections > 0
    assert output["stats"] == pytest.approx([-1 if value is None else value for value in metrics.values()], abs=1e-6)
    assert output["classes"] == ["circle", "square", "triangle", "star"]
    assert output["imported"] == []


def test_the_weights_file_is_named_by_its_hash_and_is_reproducible(train: Train, tmp_path: Path) -> None:
    emitted = train(job(name="my student", schedule={"max_steps": 1}))
    file = result_files(tmp_path / "run", emitted)["student.pth"]
    assert file.name == f"my_student-{weights.digest(file)[:8]}.pth"
    assert weights.read(file)["meta"] == {
        "dataset_meta": {"classes": ("circle", "square", "triangle", "star")},
        "image_size": (96, 96),
    }
    second = train(job(name="my student", schedule={"max_steps": 1}), tmp_path / "second")
    assert result_files(tmp_path / "second", second)["student.pth"].read_bytes() == file.read_bytes()


def test_the_safetensors_copy_holds_the_same_tensors(train: Train, tmp_path: Path) -> None:
    files = result_files(tmp_path / "run", train(job(schedule={"max_steps": 1})))
    state = weights.read(files["student.pth"])["state_dict"]
    safetensors_copy = safetensors.torch.load_file(files["student.safetensors"])
    assert state.keys() == safetensors_copy.keys()
    assert all(torch.equal(state[name], safetensors_copy[name]) for name in state)
    with safetensors.safe_open(files["student.safetensors"], "pt") as file:
        classes = json.dumps(["circle", "square", "triangle", "star"])
        assert file.metadata() == {"format": "pt", "classes": classes, "image_size": "[96, 96]"}


MMDET_APIS = """
import sys
from pathlib import Path
import mmcv_torchvision
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.runner import Runner

image = str(next(Path("val").iterdir()))
inferencer = DetInferencer(sys.argv[1], sys.argv[2], device="cpu", show_progress=False)
[prediction] = inferencer(image, out_dir=sys.argv[3])["predictions"]
detector = init_detector(sys.argv[1], sys.argv[2], device="cpu")
assert detector.dataset_meta["classes"] == ("circle", "square", "triangle", "star"), detector.dataset_meta
scores = inference_detector(detector, image).pred_instances.scores.tolist()
assert scores == prediction["scores"], (scores, prediction)
assert (Path(sys.argv[3]) / "vis" / Path(image).name).is_file()

config = Config.fromfile(sys.argv[1])
config.merge_from_dict({"load_from": sys.argv[2], "work_dir": sys.argv[3]})
print(Runner.from_cfg(config).test())
"""


@pytest.mark.parametrize("architecture", GFL_IN_MAKE_TEST)
def test_the_student_works_in_every_api_of_mmdet_in_the_data_set_folder(
    train: Train, data: Path, tmp_path: Path, architecture: str
) -> None:
    student = described(architecture, **BACKBONES.get(architecture, {}))
    files = result_files(
        tmp_path / "run", train(job(kind="train", teacher=None, student=student, schedule={"max_steps": 1}))
    )
    command = [sys.executable, "-c", MMDET_APIS, files["student-config.py"], files["student.pth"], tmp_path / "work"]
    completed = subprocess.run(command, capture_output=True, text=True, cwd=data / "tiny", check=False)
    assert completed.returncode == 0, completed.stderr[-3000:]


def test_class_names_with_the_template_syntax_of_configs_are_kept(tmp_path: Path) -> None:
    classes = ("{{$HOME:x}}", "{{ fileBasename }}", "{{ _base_.model }}", "{{{{'$HOME:x'}}", "\\{{", "it's {x}")
    model = builder.model_config(DescribedDetector.model_validate(described()), len(classes))
    writer = StudentWriter(tmp_path, "student", model, classes, batches.test_pipeline((96, 96)))
    file = SavedFile(tmp_path / "student.pth", "0" * 64, 1)
    val = SplitFiles(images=Path("/data/val"), annotations=Path("/data/annotations/instances_val.json"))
    config = Config.fromfile(writer.config(file, val).path)
    assert tuple(config.metainfo.classes) == classes == tuple(config.test_dataloader.dataset.metainfo.classes)
