"""The disk cache of the teacher's outputs: same results with fewer forward passes."""

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
from frs.distillation.teacher_cache import RESERVED_DISK_BYTES, TeacherCache
from frs.errors import InvalidSpec

SCHEDULE = {"epochs": 5, "evaluate_every": 5}


class CountingTeacher(Teacher):
    forward_passes = 0

    def observe(self, inputs: list[torch.Tensor]) -> Any:
        self.forward_passes += 1
        return super().observe(inputs)


def samples_of_pipeline(flip: bool = False) -> list[Any]:
    """Return two samples with the metadata that the pipeline sets."""
    samples = batch()["data_samples"]
    for number, sample in enumerate(samples):
        sample.set_metainfo({"img_path": f"/data/{number}.jpg", "flip": flip, "flip_direction": "horizontal"})
    return samples


def counting_cache(tmp_path: Path) -> tuple[CountingTeacher, TeacherCache]:
    teacher = CountingTeacher(detector(neck_channels=32))
    return teacher, TeacherCache(teacher, tmp_path / "cache")


def test_a_cached_batch_needs_no_forward_pass_and_has_the_same_outputs(tmp_path: Path) -> None:
    teacher, cache = counting_cache(tmp_path)
    first, again = (cache.observe(batch()["inputs"], samples_of_pipeline()) for _ in range(2))
    assert teacher.forward_passes == 1
    assert_equal(list(again), list(first))


def test_cached_images_may_be_combined_to_other_batches(tmp_path: Path) -> None:
    teacher, cache = counting_cache(tmp_path)
    features, _ = cache.observe(batch()["inputs"], samples_of_pipeline())
    reversed_features, _ = cache.observe(batch()["inputs"][::-1], samples_of_pipeline()[::-1])
    assert teacher.forward_passes == 1
    torch.testing.assert_close(reversed_features[8], features[8].flip(0), rtol=0, atol=0)


def test_a_flipped_image_has_its_own_entry(tmp_path: Path) -> None:
    teacher, cache = counting_cache(tmp_path)
    cache.observe(batch()["inputs"], samples_of_pipeline())
    cache.observe(batch()["inputs"], samples_of_pipeline(flip=True))
    assert teacher.forward_passes == 2


def test_a_truncated_file_is_written_again(tmp_path: Path) -> None:
    teacher, cache = counting_cache(tmp_path)
    first = cache.observe(batch()["inputs"], samples_of_pipeline())
    file = sorted(cache.folder.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-100])
    assert_equal(list(cache.observe(batch()["inputs"], samples_of_pipeline())), list(first))
    assert teacher.forward_passes == 2
    cache.observe(batch()["inputs"], samples_of_pipeline())
    assert teacher.forward_passes == 2


def test_a_single_image_is_not_cached(tmp_path: Path) -> None:
    """Convolutions of a single image differ in the last digits from those of a batch."""
    teacher, cache = counting_cache(tmp_path)
    for _ in range(2):
        cache.observe(batch()["inputs"][:1], samples_of_pipeline()[:1])
    assert teacher.forward_passes == 2 and not list(cache.folder.iterdir())


def test_the_cache_leaves_the_reserved_disk_space_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, cache = counting_cache(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=RESERVED_DISK_BYTES - 1))
    for _ in range(2):
        cache.observe(batch()["inputs"], samples_of_pipeline())
    assert teacher.forward_passes == 2 and not list(cache.folder.iterdir())


def test_a_full_disk_stops_the_caching_but_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, cache = counting_cache(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(2):
        cache.observe(batch()["inputs"], samples_of_pipeline())
    assert cache.full and teacher.forward_passes == 2
    assert not list(cache.folder.iterdir())


def test_a_run_with_a_cache_equals_a_run_without(train: Train, tmp_path: Path) -> None:
    auto = {"feature_weight": "auto", "logit_weight": "auto"}
    runs = {
        mode: train(job(schedule=SCHEDULE, distillation=auto | {"teacher_cache": mode}), tmp_path / mode)
        for mode in ("on", "off")
    }
    assert facts(runs["on"])["teacher_cache"] and not facts(runs["off"])["teacher_cache"]
    assert values(runs["on"]) == values(runs["off"])
    on, off = (newest_checkpoint(tmp_path / mode)["model"] for mode in ("on", "off"))
    assert_equal(on, off)
    assert not list((tmp_path / "on").glob("teacher-cache/*"))


def test_a_last_batch_of_one_image_does_not_change_the_result(train: Train, data: Path, tmp_path: Path) -> None:
    draw_dataset(data / "thirteen", train=13, val=4, size=96)
    spec = job(dataset="thirteen", schedule=SCHEDULE)
    on, off = (
        train(spec | {"distillation": spec["distillation"] | {"teacher_cache": mode}}, tmp_path / mode)
        for mode in ("on", "off")
    )
    assert values(on) == values(off)


def test_auto_caches_in_long_runs_only(train: Train, tmp_path: Path) -> None:
    assert facts(train(job(schedule=SCHEDULE), tmp_path / "long"))["teacher_cache"]
    assert not facts(train(job(schedule={"epochs": 1}), tmp_path / "short"))["teacher_cache"]


def test_images_of_several_shapes_are_not_cached(train: Train, tmp_path: Path) -> None:
    scales = {"train_sizes": [[96, 96], [64, 64]], "epochs": 5}
    assert not facts(train(job(schedule=scales), tmp_path / "auto"))["teacher_cache"]
    with pytest.raises(InvalidSpec, match="one shape"):
        train(job(schedule=scales, distillation={"teacher_cache": "on"}), tmp_path / "on")
