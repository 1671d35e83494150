"""`schedule.keep_background_images`: images without annotations are trained on, and counted, only with it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_engine import facts
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.dataset.check import check_split
from frs.dataset.coco import read
from frs.dataset.report import describe_background
from frs.dataset.splits import load_splits
from frs.dataset.trainable import background_images, labelled_images
from frs.detector_spec import DescribedDetector
from frs.detectors import builder
from frs.detectors.builder import load_base_config
from frs.engine.plan import estimate
from frs.resolved import ResolvedSpec, resolve
from frs.spec import JobSpec
from frs.training.batches import DetectionImages, TrainingLoaders, training_pipeline

KEEP = {"keep_background_images": True}
UNUSABLE = [{"iscrowd": 1}, {"ignore": 1}, {"bbox": [5, 5, 0.5, 20]}, {"bbox": [-1, 5, 1, 20]}]
"""Changes of an annotation after which training does not use its box."""


@pytest.fixture(scope="module")
def emptied(data: Path) -> Path:
    """The drawn data set with 14 training images, of which the images 5 to 14 have lost their annotations."""
    folder = shutil.copytree(data / "tiny", data / "emptied")
    file = folder / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    kept = {image["id"] for image in content["images"][:4]}
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] in kept]
    file.write_text(json.dumps(content))
    return folder


def resolved(data: Path, models: Path, **changes: Any) -> ResolvedSpec:
    return resolve(JobSpec.model_validate(job(dataset="emptied", **changes)), data, models)


def train_only(architecture: str = "gfl", **schedule: Any) -> dict[str, Any]:
    return job(kind="train", teacher=None, dataset="emptied", student=described(architecture), schedule=schedule)


@pytest.mark.parametrize(("kept", "count"), [(False, 4), (True, 14)])
def test_the_images_that_are_trained_on_depend_on_the_field(
    emptied: Path, data: Path, models: Path, kept: bool, count: int
) -> None:
    splits = load_splits(resolved(data, models, schedule={"keep_background_images": kept}), lambda done, total: None)
    assert (len(splits.trained), len(splits.background)) == (count, 10)
    assert splits.trained == sorted(splits.trained)


@pytest.mark.parametrize("changes", UNUSABLE)
def test_an_image_whose_boxes_are_all_unusable_is_not_background(tiny_coco: Any, changes: dict[str, Any]) -> None:
    coco = tiny_coco(changes)
    assert (labelled_images(coco, ()), background_images(coco, ())) == ([0], [2])


@pytest.mark.parametrize("without", [{3}, {1, 3}, {1, 2, 3}])
def test_a_background_image_with_an_issue_is_not_trained_on(tiny_coco: Any, without: set[int]) -> None:
    assert background_images(tiny_coco({}), without) == []


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Any:
    """Return the function that reads three images: one with a box, one whose box has `changes`, one without boxes."""

    def build(changes: dict[str, Any]) -> Any:
        content = {
            "images": [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 64} for n in (1, 2, 3)],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10]},
                {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 2, 10, 10]} | changes,
            ],
        }
        (tmp_path / "coco.json").write_text(json.dumps(content))
        return read(tmp_path / "coco.json")

    return build


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("indices", [[0, 13], [12, 13], [13]], ids=["one without boxes", "all", "single"])
def test_the_losses_of_images_without_boxes_are_finite_and_train_the_student(
    emptied: Path, architecture: str, indices: list[int]
) -> None:
    description = DescribedDetector.model_validate(described(architecture))
    schedule = JobSpec.model_validate(train_only(batch_size=len(indices))).schedule
    pipeline = training_pipeline(schedule, load_base_config(description))
    coco = read(emptied / "annotations" / "instances_train.json")
    [batch] = TrainingLoaders(DetectionImages(coco, emptied / "train", pipeline, 0, indices), schedule, 0)(0, 1)
    torch.manual_seed(0)
    student = builder.build(description, 4, Path()).train()
    loss, _ = student.parse_losses(student(**student.data_preprocessor(batch, True), mode="loss"))
    loss.backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


def test_a_distillation_is_calibrated_and_trained_on_batches_without_boxes(train: Train, emptied: Path) -> None:
    schedule = KEEP | {"batch_size": 1, "max_steps": 14}
    emitted = train(job(dataset="emptied", distillation={"logit_weight": "auto"}, schedule=schedule))
    assert of(events.Metrics, emitted)[-1].epoch == 1
    assert facts(emitted)["training_images"] == 14
    assert 0 < facts(emitted)["weights"]["logit"] < 1e6


def test_the_boxes_method_is_refused() -> None:
    with pytest.raises(ValidationError, match="mask `boxes` needs boxes"):
        JobSpec.model_validate(job(method="boxes", schedule=KEEP))


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_the_field_is_true_or_false(value: Any) -> None:
    with pytest.raises(ValidationError, match="keep_background_images"):
        JobSpec.model_validate(job(schedule={"keep_background_images": value}))


def test_a_plan_counts_what_is_trained_on(emptied: Path, data: Path, models: Path) -> None:
    plan = estimate(resolved(data, models, kind="train", teacher=None, schedule=KEEP), lambda event: None)
    assert (plan.ok, plan.training_images, plan.steps) == (True, 14, 8)
    assert [check for check in plan.checks if "14 images to train on. 10 of them have no boxes." in check.message]


@pytest.mark.parametrize(
    ("images", "kept", "sentences"),
    [
        (0, False, []),
        (0, True, []),
        (1, False, ["1 image without boxes is left out; `schedule.keep_background_images` trains on such images."]),
        (
            1200,
            False,
            ["1,200 images without boxes are left out; `schedule.keep_background_images` trains on such images."],
        ),
        (1200, True, ["1,200 of them have no boxes."]),
    ],
)
def test_a_plan_names_the_field_if_images_are_left_out(images: int, kept: bool, sentences: list[str]) -> None:
    assert describe_background(images, kept) == sentences


def test_the_check_counts_what_is_trained_on_with_and_without(emptied: Path) -> None:
    report = check_split(emptied / "train", emptied / "annotations" / "instances_train.json", read_images=False)
    assert (report.trained_images(False), report.trained_images(True)) == (4, 14)
    assert "10 images without boxes: training uses 4 images, with `schedule.keep_background_images` 14." in report.notes
