"""The student leaves the harness: plain mmdet, with nothing of ours but the operators, gets the same numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.detectors import weights

ELSEWHERE = """
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
        for box, score, label in zip(*(sample.pred_instances[name].double().numpy() for name in ("bboxes", "scores", "labels"))):
            rows.append([sample.img_id, box[0], box[1], box[2] - box[0], box[3] - box[1], score, dataset.cat_ids[int(label)]])
truth = COCO(f"{data_root}/{config.test_dataloader.dataset.ann_file}")
evaluation = COCOeval_faster(truth, truth.loadRes(np.array(rows).reshape(-1, 7)), "bbox", print_function=lambda *_: None)
evaluation.run()
ours = [name for name in sys.modules if name.split(".")[0] in ("frs", "store", "worker", "api", "cli")]
print(json.dumps({"stats": list(evaluation.stats[:6]), "classes": content["meta"]["dataset_meta"]["classes"], "ours": ours, "detections": len(rows)}))
"""


def exported(workdir: Path, told: list[events.Event]) -> dict[str, Path]:
    last = [event for event in of(events.Checkpoint, told) if "last" in event.labels][0]
    files = {event.name: workdir / event.path for event in of(events.Artifact, told)}
    return files | {"student.pth": workdir / last.path}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_mmdet_evaluates_the_student_to_the_same_numbers(
    train: Train, data: Path, tmp_path: Path, architecture: str
) -> None:
    spec = job(
        kind="train", teacher=None, student=described(architecture), schedule={"epochs": 15, "evaluate_every": 15}
    )
    told = train(spec)
    files = exported(tmp_path / "run", told)
    command = [sys.executable, "-c", ELSEWHERE, files["student-config.py"], files["student.pth"], data / "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    evaluation = of(events.Evaluation, told)[-1]
    reported = evaluation.metrics
    assert answer["detections"] == evaluation.detections > 0
    assert answer["stats"] == pytest.approx([-1 if value is None else value for value in reported.values()], abs=1e-6)
    assert answer["classes"] == ["circle", "square", "triangle", "star"]
    assert answer["ours"] == []


def test_the_weights_are_named_by_their_hash_and_hold_no_times_or_paths(train: Train, tmp_path: Path) -> None:
    told = train(job(name="my student", schedule={"max_steps": 1}))
    file = exported(tmp_path / "run", told)["student.pth"]
    assert file.name == f"my_student-{weights.digest(file)[:8]}.pth"
    assert weights.read(file)["meta"] == {"dataset_meta": {"classes": ("circle", "square", "triangle", "star")}}
    again = train(job(name="my student", schedule={"max_steps": 1}), tmp_path / "elsewhere")
    assert exported(tmp_path / "elsewhere", again)["student.pth"].read_bytes() == file.read_bytes()


def test_the_safetensors_twin_holds_the_same_tensors(train: Train, tmp_path: Path) -> None:
    files = exported(tmp_path / "run", train(job(schedule={"max_steps": 1})))
    state, safetensors_copy = (
        weights.read(files["student.pth"])["state_dict"],
        safetensors.torch.load_file(files["student.safetensors"]),
    )
    assert state.keys() == safetensors_copy.keys()
    assert all(torch.equal(state[name], safetensors_copy[name]) for name in state)


RUNNER = """
import sys
import mmcv_torchvision
from mmengine.config import Config
from mmengine.runner import Runner

config = Config.fromfile(sys.argv[1])
config.merge_from_dict({"load_from": sys.argv[2], "work_dir": sys.argv[3]})
print(Runner.from_cfg(config).test())
"""


def test_mmengines_runner_tests_the_student_from_the_data_sets_folder(train: Train, data: Path, tmp_path: Path) -> None:
    files = exported(tmp_path / "run", train(job(kind="train", teacher=None, schedule={"max_steps": 1})))
    command = [sys.executable, "-c", RUNNER, files["student-config.py"], files["student.pth"], tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=data / "tiny", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
