"""The benchmarks run and return the documented values; their speed is not tested."""

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


def test_the_step_benchmark_measures_every_variant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(step, "peak_in_subprocess", lambda *_: 1)  # avoids three subprocesses
    result = step.measure("gfl", tmp_path, size=64, batch_size=1, repeats=1, tiny=True)
    timed = {*step.VARIANTS, "cached", "teacher", "ratio", "ratio_authors", "ratio_cached", "ratio_teacher"}
    assert result.keys() == timed | {f"{name}_bytes" for name in step.VARIANTS}
    assert result["ratio"] == result["distilled"] / result["plain"]
    assert all(value > 0 for value in result.values())


@pytest.mark.slow
def test_a_distilled_step_needs_more_memory_than_a_plain_one() -> None:
    plain, distilled = (step.peak_in_subprocess(name, "gfl", 64, 1, tiny=True) for name in ("plain", "distilled"))
    assert 1e6 < plain < distilled


def test_the_measured_step_has_full_loss_weights_and_no_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosed = []
    monkeypatch.setattr("frs.distillation.distiller.diagnose", lambda *_: diagnosed.append(1) or {})
    model = step.pairs.distiller(step.pairs.student("gfl", tiny=True).train(), step.pairs.teacher("gfl", tiny=True))
    for _ in range(2):
        model.train_step(step.pairs.batch((64, 64), 1), LossRecorder())
    assert model.factor(1) == 1 and not diagnosed


@pytest.mark.parametrize("detector", table.STEP_GOALS)
def test_the_authors_formulation_gives_the_same_loss(detector: str) -> None:
    student = step.pairs.student(detector, tiny=True).train()
    distiller = step.pairs.distiller(student, step.pairs.teacher(detector, tiny=True))
    data, recorder = step.pairs.batch((64, 64), 1), LossRecorder()
    for model in (distiller, step.AuthorsFormulation(distiller)):
        step.torch.manual_seed(0)
        model.train_step(data, recorder)
    assert recorder.losses[0] == pytest.approx(recorder.losses[1], rel=1e-4)


class LossRecorder:
    """An optimizer wrapper that records the losses and updates nothing."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def optim_context(self, _model: object) -> object:
        return step.torch.enable_grad()

    def update_params(self, loss: step.torch.Tensor) -> None:
        self.losses.append(loss.item())


def test_cached_outputs_equal_the_teachers_outputs(tmp_path: Path) -> None:
    result = teacher_cache.measure("gfl", tmp_path, size=64, images=2, repeats=1, tiny=True)
    assert result["difference"] == 0
    assert result["bytes_per_image"] > 0 and result["ratio"] == result["cached"] / result["looked"]


def test_all_twelve_metrics_equal_those_of_pycocotools() -> None:
    result = evaluation.measure(images=20, repeats=1)
    assert result["equal"] == 12
    assert 0 < result["mAP"] < 1


def test_the_generated_data_set_has_no_issues_and_the_requested_size() -> None:
    result = dataset_check.measure(images=12, boxes=50, quiet=True)
    assert (result["images"], result["boxes"], result["issues"]) == (12, 50, {})


def test_the_loader_benchmark_returns_the_wait_as_a_fraction_of_the_step(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=8, val=2, size=64)
    result = loader.measure(tmp_path, workers=0, steps=1)
    assert result["share"] == result["wait"] / result["step"]
    assert result["wait"] > 0


def test_the_gpu_benchmark_measures_every_variant() -> None:
    result = gpu.measure("retinanet", tiny=True, repeats=1, deadline=math.inf)
    assert {"stock", "plain", "distilled", "over_stock", "over_plain", "busy", "loaded_steps"} <= result.keys()
    assert result["loaded_steps"] == 2


def test_the_gpu_benchmark_returns_partial_results_at_its_deadline() -> None:
    result = gpu.measure("fcos", tiny=True, repeats=9, deadline=time.monotonic())
    assert result["over_stock"] > 0
    assert "loaded_steps" not in result


def test_the_query_benchmark_measures_lists_and_curves() -> None:
    result = queries.measure(scale=0.001, repeats=2)
    assert (result["jobs"], result["metrics"]) == (100, 20 * (5_000 + 50))
    rows = table.queries(result, "sqlite")
    assert len(rows) == 4 + 2 * 4
    assert all(value["p95"] >= value["p50"] > 0 for value in result.values() if isinstance(value, dict))


def test_every_stream_receives_an_event_per_second() -> None:
    result = streams.measure(clients=6, jobs=3, seconds=4)
    assert (result["clients"], result["jobs"]) == (6, 3)
    assert result["events"] == result["expected"] >= 6
    assert 0 < result["p50"] <= result["p99"] <= result["worst"]
    assert len(table.streams(result, "3")) == 3


def test_the_table_shows_which_goals_are_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "run", lambda *_: {"seconds": 61.0, "peak_bytes": 1e9})
    monkeypatch.setattr("sys.argv", ["table", "--only", "dataset_check", "--results", str(tmp_path / "results.json")])
    table.main()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["met"] for row in rows] == [False, True]


def test_a_benchmark_that_cannot_run_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "BENCHMARKS", {"posting": table.posting, "evaluation": table.evaluation})
    monkeypatch.setattr(table, "PROGRAMS", {"posting": "no-such-program"})
    monkeypatch.setattr(table, "HERE", tmp_path)  # has no evaluation.py
    monkeypatch.setattr("sys.argv", ["table", "--results", str(tmp_path / "results.json")])
    with pytest.raises(SystemExit):
        table.main()
    posting_row, evaluation_row = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert "no-such-program is not installed" in posting_row["aside"]
    assert "exit status 2" in evaluation_row["aside"]
    assert {posting_row["measured"], evaluation_row["measured"]} == {"not measured"}
    assert "No such file" in capfd.readouterr().err


@pytest.mark.slow
def test_the_posting_benchmark_compares_with_the_floor_and_loses_no_jobs_after_kill_9() -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    result = posting.measure(seconds=1, pairs=1)
    assert result["ratio"] == result["rate"] / result["floor"] > 0
    assert result["acknowledged"] > 0 and result["lost"] == 0


def test_rows_sent_twice_are_recorded_once() -> None:
    result = recording.measure(steps=100)
    assert (result["status"], result["sent"], result["surplus"]) == ("succeeded", 1500, 0)


@pytest.mark.slow
def test_claims_and_cancels_are_timed() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    result = latency.measure(jobs=3, cancels=1)
    assert min(result["claim"], result["claim_without"], result["cancel"]) > 0


def test_memory_is_sampled_while_jobs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "EVERY", 5)
    result = steady.measure(jobs=20)
    assert result["api_mb"] > 10 and result["worker_mb"] > 10 and "api_slope" in result


def test_the_load_group_contains_only_benchmarks() -> None:
    assert set(table.GROUPS["load"]) <= set(table.BENCHMARKS)
