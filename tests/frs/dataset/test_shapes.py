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


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_the_same_seed_draws_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        draw_dataset(tmp_path / folder, train=4, val=2, seed=3)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_another_seed_draws_another_set(tmp_path):
    for seed in (3, 4):
        draw_dataset(tmp_path / str(seed), train=2, val=1, seed=seed)
    one, two = content(tmp_path / "3"), content(tmp_path / "4")
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one)


def test_the_halves_share_no_picture(tmp_path):
    draw_dataset(tmp_path, train=3, val=3)
    pictures = [value for name, value in content(tmp_path).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == 6


def test_a_smaller_set_is_the_beginning_of_a_larger_one(tmp_path):
    draw_dataset(tmp_path / "small", train=3, val=2)
    draw_dataset(tmp_path / "large", train=6, val=2)
    small, large = content(tmp_path / "small"), content(tmp_path / "large")
    assert all(large[name] == value for name, value in small.items() if name.endswith(".jpg"))
    few, many = (read(tmp_path / name / "annotations" / "instances_train.json") for name in ("small", "large"))
    assert many.boxes.xywh[: len(few.boxes)].tolist() == few.boxes.xywh.tolist()


@pytest.mark.parametrize("size", [64, 160, 320])
def test_a_drawn_set_passes_its_own_check(tmp_path, size):
    draw_dataset(tmp_path, train=40, val=20, size=size)
    halves = [
        check_split(tmp_path / half, tmp_path / "annotations" / f"instances_{half}.json") for half in ("train", "val")
    ]
    check_pair(*halves)
    for report in halves:
        assert report.issues == []
        assert report.class_names == ("circle", "square", "triangle", "star")
        assert all(row.boxes > 5 for row in report.classes)
        assert report.counts.images_without_boxes == 0


def test_shapes_come_in_all_sizes(tmp_path):
    draw_dataset(tmp_path, train=60, val=1)
    sizes = check_split(tmp_path / "train", tmp_path / "annotations" / "instances_train.json").box_sizes
    assert min(sizes.small, sizes.medium) > 50
    assert sizes.large > 0


def test_a_finished_set_is_not_drawn_again(tmp_path):
    draw_dataset(tmp_path, train=2, val=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    seen = []
    draw_dataset(tmp_path, train=2, val=1, progress=lambda done, images: seen.append((done, images)))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_interrupted_set_is_drawn_to_its_end(tmp_path):
    def stop(done: int, images: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    draw_dataset(tmp_path / "whole", train=5, val=2)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "cut", train=5, val=2, progress=stop)
    assert not (tmp_path / "cut" / "annotations" / "instances_train.json").exists()
    draw_dataset(tmp_path / "cut", train=5, val=2)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 3}, {"size": 96}])
def test_another_order_is_drawn_over_the_first(tmp_path, change):
    draw_dataset(tmp_path / "a", train=2, val=1)
    draw_dataset(tmp_path / "a", **{"train": 2, "val": 1} | change)
    draw_dataset(tmp_path / "b", **{"train": 2, "val": 1} | change)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_missing_picture_is_drawn_again(tmp_path):
    draw_dataset(tmp_path, train=2, val=1)
    (tmp_path / "train" / "000002.jpg").unlink()
    draw_dataset(tmp_path, train=2, val=1)
    assert (tmp_path / "train" / "000002.jpg").is_file()


@pytest.mark.parametrize("document", ["", "[]", json.dumps({"images": []}), json.dumps({"info": {"year": 2017}})])
def test_a_set_that_was_not_drawn_is_never_overwritten(tmp_path, document):
    annotations = tmp_path / "annotations" / "instances_train.json"
    annotations.parent.mkdir()
    annotations.write_text(document)
    with pytest.raises(BadDataset, match="not drawn"):
        draw_dataset(tmp_path, train=2, val=1)
    assert annotations.read_text() == document


def test_the_box_of_a_shape_alone_is_tight():
    mask = np.zeros((60, 80), dtype=bool)
    cover = coverage(CLASSES["star"], 20, 0.3) >= 0.5
    mask[5 : 5 + cover.shape[0], 30 : 30 + cover.shape[1]] = cover
    left, top, width, height = tight_box(mask)
    inside = mask[top : top + height, left : left + width]
    assert inside.sum() == mask.sum()
    assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize("name", NAMES)
def test_a_shape_reaches_as_far_as_its_outline(name):
    left, top, width, height = tight_box(coverage(CLASSES[name], 25, 0.0) >= 0.5)
    expected = 25 * np.ptp(CLASSES[name], axis=0)
    assert np.abs(np.array([width, height]) - expected).max() <= 1.5


def test_a_circle_covers_what_an_ellipse_of_its_box_covers():
    cover = coverage(CLASSES["circle"], 30, 0.0) >= 0.5
    left, top, width, height = tight_box(cover)
    sheet = Image.new("1", cover.shape[::-1])
    ImageDraw.Draw(sheet).ellipse((left, top, left + width - 1, top + height - 1), fill=1)
    assert (np.asarray(sheet) ^ cover).sum() < 0.03 * cover.sum()


def test_a_hollow_shape_has_a_hole():
    cover = coverage(CLASSES["square"], 20, 0.0, hollow=0.7)
    centre = cover.shape[0] // 2
    assert cover[centre, centre] == 0
    assert cover.max() == 1


def test_every_scene_shows_something():
    assert all(draw_scene(default_rng(seed), 160).objects for seed in range(100))
