import json
from pathlib import Path
from typing import Any

import pytest
from tiny import Train, described, job, of

from frs import events
from frs.dataset.coco import CocoFile, read
from frs.dataset.shapes.drawing import draw_dataset
from frs.dataset.trainable import labelled_images, trainable_boxes
from frs.detector_spec import ConfigDetector
from frs.detectors.builder import load_base_config
from frs.engine.trainer import to_frs_error
from frs.schedule_spec import Schedule
from frs.training.batches import DetectionImages, TrainingLoaders, training_pipeline

GFL = load_base_config(ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py"))
SCHEDULE = Schedule(image_size=(96, 96), batch_size=2)


def drawn_coco(folder: Path, **annotation: Any) -> CocoFile:
    """Return a drawn data set with `annotation` merged into its first annotation."""
    draw_dataset(folder / "set", train=3, val=2, size=96)
    file = folder / "set" / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0].update(annotation)
    file.write_text(json.dumps(content))
    return read(file)


@pytest.mark.parametrize("bbox", [[95.5, 10, 0.4, 20], [96.0, 10, 1.0, 20], [-1.0, 10, 1.0, 20], [10, 10, 0.5, 30]])
def test_a_box_that_clipping_would_make_empty_is_not_trained_on(tmp_path: Path, bbox: list[float]) -> None:
    coco = drawn_coco(tmp_path, bbox=bbox, area=bbox[2] * bbox[3])
    assert trainable_boxes(coco.boxes, 96, 96).sum() == len(coco.boxes) - 1


@pytest.mark.parametrize("architecture", ["retinanet", "faster_rcnn"])
def test_the_loss_is_finite_with_boxes_at_the_edge_of_the_image(
    train: Train, data: Path, architecture: str, tmp_path: Path
) -> None:
    folder = data / f"edge_{architecture}"
    draw_dataset(folder, train=4, val=2, size=96)
    file = folder / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"][::2]:
        annotation["bbox"] = [95.5, 10, 0.4, 20]
    file.write_text(json.dumps(content))
    emitted = train(
        job(kind="train", teacher=None, dataset=folder.name, student=described(architecture), schedule={"epochs": 1})
    )
    assert of(events.Evaluation, emitted)[-1].last


def test_an_excluded_image_is_not_trained_on(tmp_path: Path) -> None:
    coco = drawn_coco(tmp_path)
    assert labelled_images(coco, without=()) == [0, 1, 2]
    assert labelled_images(coco, without={coco.images[1].id}) == [0, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_without_its_path(tmp_path: Path, workers: int) -> None:
    coco = drawn_coco(tmp_path)
    folder = tmp_path / "set" / "train"
    unreadable = folder / coco.images[0].file_name
    unreadable.write_bytes(b"no image")
    images = DetectionImages(coco, folder, training_pipeline(SCHEDULE, GFL), 0, [0, 1, 2])
    with pytest.raises(Exception) as caught:
        list(TrainingLoaders(images, SCHEDULE, workers)(0, 2))
    error = to_frs_error(caught.value)
    assert (error.code, error.message) == ("bad_dataset", f"{unreadable.name} cannot be read.")
