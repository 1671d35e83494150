"""The teacher's outputs kept on disk: the same results, fewer passes."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_distiller import batch, detector
from test_engine import assert_equal, facts, newest_checkpoint, values
from tiny import Train, job

from frs.dataset.shapes.drawing import draw_dataset
from frs.distillation.teacher import Teacher
from frs.distillation.teacher_cache import RESERVE, TeacherCache
from frs.errors import InvalidSpec

SCHEDULE = {"epochs": 5, "evaluate_every": 5}


class Counting(Teacher):
    passes = 0

    def observe(self, inputs: list[torch.Tensor]) -> Any:
        self.passes += 1
        return super().observe(inputs)


def marked(flip: bool = False) -> list[Any]:
    """Two samples as the pipeline marks them."""
    samples = batch()["data_samples"]
    for number, sample in enumerate(samples):
        sample.set_metainfo({"img_path": f"/data/{number}.jpg", "flip": flip, "flip_direction": "horizontal"})
    return samples


def cached(tmp_path: Path) -> tuple[Counting, TeacherCache]:
    teacher = Counting(detector(neck_channels=32))
    return teacher, TeacherCache(teacher, tmp_path / "cache")


def test_a_batch_seen_before_costs_no_pass_and_is_the_same(tmp_path: Path) -> None:
    teacher, cache = cached(tmp_path)
    first, again = (cache.observe(batch()["inputs"], marked()) for _ in range(2))
    assert teacher.passes == 1
    assert_equal(list(again), list(first))


def test_images_are_kept_apart_whatever_batch_they_come_in(tmp_path: Path) -> None:
    teacher, cache = cached(tmp_path)
    features, _ = cache.observe(batch()["inputs"], marked())
    turned, _ = cache.observe(batch()["inputs"][::-1], marked()[::-1])
    assert teacher.passes == 1
    torch.testing.assert_close(turned[8], features[8].flip(0), rtol=0, atol=0)


def test_a_flipped_image_is_another(tmp_path: Path) -> None:
    teacher, cache = cached(tmp_path)
    cache.observe(batch()["inputs"], marked())
    cache.observe(batch()["inputs"], marked(flip=True))
    assert teacher.passes == 2


def test_a_file_cut_short_is_made_anew(tmp_path: Path) -> None:
    teacher, cache = cached(tmp_path)
    first = cache.observe(batch()["inputs"], marked())
    file = sorted(cache.folder.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-100])
    assert_equal(list(cache.observe(batch()["inputs"], marked())), list(first))
    assert teacher.passes == 2
    cache.observe(batch()["inputs"], marked())
    assert teacher.passes == 2


def test_a_single_image_is_looked_at_each_time(tmp_path: Path) -> None:
    """Alone it is convolved in another way than in a batch, and the last digits differ."""
    teacher, cache = cached(tmp_path)
    for _ in range(2):
        cache.observe(batch()["inputs"][:1], marked()[:1])
    assert teacher.passes == 2 and not list(cache.folder.iterdir())


def test_some_of_the_disk_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, cache = cached(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=RESERVE - 1))
    for _ in range(2):
        cache.observe(batch()["inputs"], marked())
    assert teacher.passes == 2 and not list(cache.folder.iterdir())


def test_a_full_disk_ends_the_keeping_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, cache = cached(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(2):
        cache.observe(batch()["inputs"], marked())
    assert cache.full and teacher.passes == 2
    assert not list(cache.folder.iterdir())


def test_a_run_with_it_equals_one_without(train: Train, tmp_path: Path) -> None:
    auto = {"feature_weight": "auto", "logit_weight": "auto"}
    told = {
        asked: train(job(schedule=SCHEDULE, distillation=auto | {"teacher_cache": asked}), tmp_path / asked)
        for asked in ("on", "off")
    }
    assert facts(told["on"])["teacher_cache"] and not facts(told["off"])["teacher_cache"]
    assert values(told["on"]) == values(told["off"])
    on, off = (newest_checkpoint(tmp_path / asked)["model"] for asked in ("on", "off"))
    assert_equal(on, off)
    assert not list((tmp_path / "on").glob("teacher-cache/*"))


def test_a_last_batch_of_one_changes_nothing(train: Train, data: Path, tmp_path: Path) -> None:
    draw_dataset(data / "thirteen", train=13, val=4, size=96)
    spec = job(dataset="thirteen", schedule=SCHEDULE)
    told = [
        train(spec | {"distillation": spec["distillation"] | {"teacher_cache": asked}}, tmp_path / asked)
        for asked in ("on", "off")
    ]
    assert values(told[0]) == values(told[1])


def test_auto_keeps_where_it_repays(train: Train, tmp_path: Path) -> None:
    assert facts(train(job(schedule=SCHEDULE), tmp_path / "long"))["teacher_cache"]
    assert not facts(train(job(schedule={"epochs": 1}), tmp_path / "short"))["teacher_cache"]


def test_images_of_several_shapes_are_not_kept(train: Train, tmp_path: Path) -> None:
    scales = {"train_sizes": [[96, 96], [64, 64]], "epochs": 5}
    assert not facts(train(job(schedule=scales), tmp_path / "auto"))["teacher_cache"]
    with pytest.raises(InvalidSpec, match="one shape"):
        train(job(schedule=scales, distillation={"teacher_cache": "on"}), tmp_path / "on")
