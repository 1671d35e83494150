import json
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from PIL import Image, ImageDraw

from frs.dataset.check import check_pair, check_split
from frs.dataset.coco import read
from frs.dataset.shapes.drawing import draw_dataset
from frs.dataset.shapes.outlines import CLASSES, coverage
from frs.dataset.shapes.scene import NAMES, draw_scene, tight_box
from frs.errors import BadDataset


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_the_same_seed_draws_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        draw_dataset(tmp_path / folder, train=4, val=2, seed=3)
    assert read_files(tmp_path / "one") == read_files(tmp_path / "two")


def test_another_seed_draws_other_images(tmp_path):
    for seed in (3, 4):
        draw_dataset(tmp_path / str(seed), train=2, val=1, seed=seed)
    one, two = read_files(tmp_path / "3"), read_files(tmp_path / "4")
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one)


def test_the_splits_share_no_image(tmp_path):
    draw_dataset(tmp_path, train=3, val=3)
    images = [value for name, value in read_files(tmp_path).items() if name.endswith(".jpg")]
    assert len(set(images)) == 6


def test_a_smaller_data_set_is_the_beginning_of_a_larger_one(tmp_path):
    draw_dataset(tmp_path / "small", train=3, val=2)
    draw_dataset(tmp_path / "large", train=6, val=2)
    small, large = read_files(tmp_path / "small"), read_files(tmp_path / "large")
    assert all(large[name] == value for name, value in small.items() if name.endswith(".jpg"))
    small_coco, large_coco = (
        read(tmp_path / name / "annotations" / "instances_train.json") for name in ("small", "large")
    )
    assert large_coco.boxes.xywh[: len(small_coco.boxes)].tolist() == small_coco.boxes.xywh.tolist()


@pytest.mark.parametrize("size", [64, 160, 320])
def test_a_drawn_data_set_passes_the_check(tmp_path, size):
    draw_dataset(tmp_path, train=40, val=20, size=size)
    reports = [
        check_split(tmp_path / split, tmp_path / "annotations" / f"instances_{split}.json")
        for split in ("train", "val")
    ]
    check_pair(*reports)
    for report in reports:
        assert report.issues == []
        assert report.class_names == ("circle", "square", "triangle", "star")
        assert all(row.boxes > 5 for row in report.classes)
        assert report.counts.images_without_boxes == 0


def test_shapes_have_all_sizes(tmp_path):
    draw_dataset(tmp_path, train=60, val=1)
    sizes = check_split(tmp_path / "train", tmp_path / "annotations" / "instances_train.json").box_sizes
    assert min(sizes.small, sizes.medium) > 50
    assert sizes.large > 0


def test_a_complete_data_set_is_not_drawn_again(tmp_path):
    draw_dataset(tmp_path, train=2, val=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    calls = []
    draw_dataset(tmp_path, train=2, val=1, progress=lambda done, images: calls.append((done, images)))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_an_interrupted_data_set_is_completed(tmp_path):
    def stop(done: int, images: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    draw_dataset(tmp_path / "complete", train=5, val=2)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "interrupted", train=5, val=2, progress=stop)
    assert not (tmp_path / "interrupted" / "annotations" / "instances_train.json").exists()
    draw_dataset(tmp_path / "interrupted", train=5, val=2)
    assert read_files(tmp_path / "interrupted") == read_files(tmp_path / "complete")


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 3}, {"size": 96}])
def test_other_parameters_replace_the_data_set(tmp_path, change):
    draw_dataset(tmp_path / "a", train=2, val=1)
    draw_dataset(tmp_path / "a", **{"train": 2, "val": 1} | change)
    draw_dataset(tmp_path / "b", **{"train": 2, "val": 1} | change)
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")


def test_a_missing_image_is_drawn_again(tmp_path):
    draw_dataset(tmp_path, train=2, val=1)
    (tmp_path / "train" / "000002.jpg").unlink()
    draw_dataset(tmp_path, train=2, val=1)
    assert (tmp_path / "train" / "000002.jpg").is_file()


@pytest.mark.parametrize("document", ["", "[]", json.dumps({"images": []}), json.dumps({"info": {"year": 2017}})])
def test_a_data_set_that_was_not_drawn_is_never_overwritten(tmp_path, document):
    annotations = tmp_path / "annotations" / "instances_train.json"
    annotations.parent.mkdir()
    annotations.write_text(document)
    with pytest.raises(BadDataset, match="not drawn"):
        draw_dataset(tmp_path, train=2, val=1)
    assert annotations.read_text() == document


def test_the_box_of_a_single_shape_is_tight():
    mask = np.zeros((60, 80), dtype=bool)
    cover = coverage(CLASSES["star"], 20, 0.3) >= 0.5
    mask[5 : 5 + cover.shape[0], 30 : 30 + cover.shape[1]] = cover
    left, top, width, height = tight_box(mask)
    inside = mask[top : top + height, left : left + width]
    assert inside.sum() == mask.sum()
    assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize("name", NAMES)
def test_a_shape_is_as_large_as_its_outline(name):
    left, top, width, height = tight_box(coverage(CLASSES[name], 25, 0.0) >= 0.5)
    expected = 25 * np.ptp(CLASSES[name], axis=0)
    assert np.abs(np.array([width, height]) - expected).max() <= 1.5


def test_a_circle_covers_the_pixels_of_an_ellipse_in_its_box():
    cover = coverage(CLASSES["circle"], 30, 0.0) >= 0.5
    left, top, width, height = tight_box(cover)
    canvas = Image.new("1", cover.shape[::-1])
    ImageDraw.Draw(canvas).ellipse((left, top, left + width - 1, top + height - 1), fill=1)
    assert (np.asarray(canvas) ^ cover).sum() < 0.03 * cover.sum()


def test_a_hollow_shape_has_a_hole():
    cover = coverage(CLASSES["square"], 20, 0.0, hollow=0.7)
    centre = cover.shape[0] // 2
    assert cover[centre, centre] == 0
    assert cover.max() == 1


def test_every_scene_has_an_object():
    assert all(draw_scene(default_rng(seed), 160).objects for seed in range(100))
