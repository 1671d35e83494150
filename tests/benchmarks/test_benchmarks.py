"""That the benchmarks run and say what they promise; never how fast."""

import json
import math
import shutil
import time
from pathlib import Path

import dataset_check
import evaluation
import gpu
import latency
import loader
import posting
import pytest
import queries
import recording
import steady
import step
import streams
import table
import teacher_cache

from frs.dataset.shapes.drawing import draw_dataset


def test_a_step_is_measured_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "_peak_apart", lambda *_: 1)  # three more processes
    found = step.measure("gfl", size=64, batch_size=1, repeats=1, tiny=True)
    timed = {"plain", "distilled", "authors", "ratio", "ratio_authors"}
    assert found.keys() == timed | {f"{name}_bytes" for name in step.VARIANTS}
    assert found["ratio"] == found["distilled"] / found["plain"]
    assert all(value > 0 for value in found.values())


def test_a_teacher_costs_memory() -> None:
    plain, distilled = (step._peak_apart(name, "gfl", 64, 1, tiny=True) for name in ("plain", "distilled"))
    assert 1e6 < plain < distilled


def test_the_step_that_is_measured_is_ramped_up_and_not_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosed = []
    monkeypatch.setattr("frs.distillation.distiller.diagnose", lambda *_: diagnosed.append(1) or {})
    model = step.pairs.distiller(step.pairs.student("gfl", tiny=True).train(), step.pairs.teacher("gfl", tiny=True))
    for _ in range(2):
        model.train_step(step.pairs.batch((64, 64), 1), Told())
    assert model.ramp == 1 and not diagnosed


@pytest.mark.parametrize("detector", table.STEP_GOALS)
def test_the_authors_formulation_gives_the_same_loss(detector: str) -> None:
    """Or the two would not be worth comparing."""
    student = step.pairs.student(detector, tiny=True).train()
    distiller = step.pairs.distiller(student, step.pairs.teacher(detector, tiny=True))
    data, told = step.pairs.batch((64, 64), 1), Told()
    for model in (distiller, step._Authors(distiller)):
        step.torch.manual_seed(0)
        model.train_step(data, told)
    assert told.losses[0] == pytest.approx(told.losses[1], rel=1e-4)


class Told:
    """An optimizer wrapper that changes nothing and remembers the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def optim_context(self, _model: object) -> object:
        return step.torch.enable_grad()

    def update_params(self, loss: step.torch.Tensor) -> None:
        self.losses.append(loss.item())


def test_outputs_from_disk_are_the_teachers_own(tmp_path: Path) -> None:
    found = teacher_cache.measure("gfl", tmp_path, size=64, images=2, repeats=1, tiny=True)
    assert found["difference"] == 0
    assert found["bytes_per_image"] > 0 and found["ratio"] == found["cached"] / found["looked"]


def test_all_twelve_numbers_of_evaluation_are_pycocotools() -> None:
    found = evaluation.measure(images=20, repeats=1)
    assert found["equal"] == 12
    assert 0 < found["mAP"] < 1


def test_the_made_data_set_is_sound_and_of_the_size_asked_for() -> None:
    found = dataset_check.measure(images=12, boxes=50, silent=True)
    assert (found["images"], found["boxes"], found["issues"]) == (12, 50, {})


def test_waiting_is_told_as_a_share_of_the_step(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=8, val=2, size=64)
    found = loader.measure(tmp_path, workers=0, steps=1)
    assert found["share"] == found["wait"] / found["step"]
    assert found["wait"] > 0


def test_a_gpus_benchmark_measures_every_variant() -> None:
    found = gpu.measure("retinanet", tiny=True, repeats=1, deadline=math.inf)
    assert {"stock", "plain", "distilled", "over_stock", "over_plain", "busy", "loaded_steps"} <= found.keys()
    assert found["loaded_steps"] == 2


def test_a_gpus_benchmark_out_of_time_says_what_it_has() -> None:
    found = gpu.measure("fcos", tiny=True, repeats=9, deadline=time.monotonic())
    assert found["over_stock"] > 0
    assert "loaded_steps" not in found


def test_lists_and_curves_are_asked_for_over_full_tables() -> None:
    found = queries.measure(scale=0.001, repeats=2)
    assert (found["jobs"], found["metrics"]) == (100, 20 * (5_000 + 50))
    rows = table.queries(found, "sqlite")
    assert len(rows) == 4 + 2 * 4
    assert all(value["p95"] >= value["p50"] > 0 for value in found.values() if isinstance(value, dict))


def test_every_stream_hears_of_an_event_a_second() -> None:
    found = streams.measure(clients=6, jobs=3, seconds=4)
    assert (found["clients"], found["jobs"]) == (6, 3)
    assert 6 <= found["events"] <= 6 * 8
    assert 0 < found["p50"] <= found["p99"] <= found["worst"]
    assert len(table.streams(found, "3")) == 3


def test_the_table_tells_met_from_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_run", lambda *_: {"seconds": 61.0, "peak_bytes": 1e9})
    monkeypatch.setattr("sys.argv", ["table", "--only", "dataset_check", "--results", str(tmp_path / "results.json")])
    table.main()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["met"] for row in rows] == [False, True]


def test_posts_are_counted_beside_the_floor_and_after_kill_9() -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    found = posting.measure(seconds=1, pairs=1)
    assert found["ratio"] == found["rate"] / found["floor"] > 0
    assert found["acknowledged"] > 0 and found["lost"] == 0


def test_every_row_told_is_recorded_once() -> None:
    found = recording.measure(steps=100)
    assert (found["status"], found["told"], found["surplus"]) == ("succeeded", 1500, 0)


def test_claims_and_cancels_are_timed() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    found = latency.measure(jobs=3, cancels=1)
    assert min(found["claim"], found["claim_without"], found["cancel"]) > 0


def test_memory_is_sampled_while_jobs_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "EVERY", 5)
    found = steady.measure(jobs=20)
    assert found["api_mb"] > 10 and found["worker_mb"] > 10 and "api_slope" in found


def test_only_load_is_a_group_of_them() -> None:
    assert set(table.GROUPS["load"]) <= set(table.BENCHMARKS)
