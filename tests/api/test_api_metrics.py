"""Metric series of a job: downsampling, caching and CSV."""

import csv
import io
import math
import random

import numpy as np
import pytest
from sqlalchemy import event

from api.metric_cache import MetricCurveCache, downsample
from frs import events


@pytest.fixture
def running(service, shapes):
    """The lease of a running job."""
    return service.claim(service.submit()["id"])


def record(service, lease, steps, **values):
    """Record one `Metrics` event per step; `values` maps keys below `train/` to functions of the step."""
    functions = {f"train/{key}": value for key, value in values.items()}
    batch = [
        events.Metrics(step=step, epoch=step // 10 + 1, values={key: value(step) for key, value in functions.items()})
        for step in steps
    ]
    service.record(lease, *batch)


def test_each_metric_is_a_series_with_statistics(service, running):
    record(service, running, range(1, 4), loss=lambda step: 4.0 - step, lr=lambda step: 0.1)
    metrics = service.get(f"/jobs/{running.job_id}/metrics")
    assert [series["key"] for series in metrics["series"]] == ["train/loss", "train/lr"]
    assert metrics["series"][0] == {
        "key": "train/loss",
        "x": [1, 2, 3],
        "y": [3.0, 2.0, 1.0],
        "count": 3,
        "min": 1.0,
        "max": 3.0,
        "last": 1.0,
        "sampled": False,
    }


def test_the_keys_parameter_selects_series(service, running):
    record(service, running, [1], a=lambda _: 1.0, b=lambda _: 2.0, c=lambda _: 3.0)
    metrics = service.get(f"/jobs/{running.job_id}/metrics", params={"keys": "train/c,train/a,nope,train/c"})
    assert [series["key"] for series in metrics["series"]] == ["train/c", "train/a"]


def test_x_is_step_epoch_or_time(service, running):
    record(service, running, [9, 10], a=lambda _: 1.0)
    path = f"/jobs/{running.job_id}/metrics"
    by_axis = {x: service.get(path, params={"x": x})["series"][0]["x"] for x in ("step", "epoch", "time")}
    assert (by_axis["step"], by_axis["epoch"]) == ([9, 10], [1, 2])
    assert all(time > 1.7e9 for time in by_axis["time"])


def test_a_metric_without_a_value_is_null(service, running):
    record(service, running, [1, 2], mAP_l=lambda _: None)
    [series] = service.get(f"/jobs/{running.job_id}/metrics")["series"]
    assert (series["y"], series["min"], series["max"], series["last"]) == ([None, None], None, None, None)


def test_since_returns_only_new_points(service, running):
    path = f"/jobs/{running.job_id}/metrics"
    record(service, running, [1, 2], a=lambda step: float(step))
    first = service.get(path)
    assert service.get(path, params={"since": first["next_since"]}) == {"series": [], "next_since": first["next_since"]}
    record(service, running, [3], a=lambda step: float(step))
    second = service.get(path, params={"since": first["next_since"]})
    assert second["series"][0]["x"] == [3]
    assert second["next_since"] > first["next_since"]


def test_a_job_without_metrics_has_no_series(service, shapes):
    job = service.submit()
    assert service.get(f"/jobs/{job['id']}/metrics")["series"] == []


def test_a_long_curve_is_downsampled_and_keeps_its_extremes(service, running):
    def loss(step):
        return {777: 99.0, 1500: -5.0}.get(step, math.sin(step))

    record(service, running, range(2000), loss=loss)
    [series] = service.get(f"/jobs/{running.job_id}/metrics", params={"max_points": 50})["series"]
    assert (series["count"], series["sampled"]) == (2000, True)
    assert len(series["x"]) == len(series["y"]) <= 50
    assert (series["min"], series["max"]) == (-5.0, 99.0)
    points = dict(zip(series["x"], series["y"], strict=True))
    assert (points[777], points[1500]) == (99.0, -5.0)
    assert (series["x"][0], series["x"][-1]) == (0, 1999)
    assert series["x"] == sorted(series["x"])


@pytest.mark.parametrize("max_points", [4, 5, 10, 499])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 11, 500, 1237])
def test_downsampling_keeps_the_bound_the_ends_and_the_extremes(length, max_points):
    numbers = random.Random(0)
    points = [(step, None if numbers.random() < 0.2 else numbers.random()) for step in range(length)]
    sample = downsampled(points, max_points)
    values = [y for _, y in points if y is not None]
    assert len(sample) <= max(max_points, 0)
    assert sample[:1] == points[:1]
    assert sample[-1:] == points[-1:]
    assert len(set(sample)) == len(sample)
    assert min((y for _, y in sample if y is not None), default=None) == min(values, default=None)
    assert max((y for _, y in sample if y is not None), default=None) == max(values, default=None)


def test_a_sample_of_two_points_is_the_ends():
    assert downsampled([(step, float(step)) for step in range(9)], 2) == [(0, 0.0), (8, 8.0)]


def downsampled(points, max_points):
    steps = np.array([step for step, _ in points], dtype=np.int64)
    values = np.array([np.nan if value is None else value for _, value in points])
    return [points[index] for index in downsample(steps, values, max_points)]


def test_bins_have_equal_width_for_any_density_of_points():
    points = [(step, 0.0) for step in (*range(1000), *range(1000, 100_000, 1000), 100_000)]
    steps = [step for step, _ in downsampled(points, 50)]
    assert sum(step > 1000 for step in steps) > 20


def test_new_points_extend_the_cached_curve(service, running):
    path = f"/jobs/{running.job_id}/metrics"
    for first in range(0, 5000, 500):
        record(service, running, range(first, first + 500), a=lambda step: math.sin(step) * (9 if step == 777 else 1))
        [series] = service.get(path)["series"]
        assert (series["count"], series["x"][-1]) == (first + 500, first + 499)
        assert len(series["x"]) <= 500
        assert series["x"] == sorted(set(series["x"]))
    values = [math.sin(step) * (9 if step == 777 else 1) for step in range(5000)]
    assert (series["min"], series["max"]) == (min(values), max(values))
    assert {min(values), max(values)} <= set(series["y"])
    assert max(np.diff(series["x"])) < 100, "the density is uniform along the curve"


def test_invalidated_points_disappear_at_once(service, running):
    path = f"/jobs/{running.job_id}/metrics"
    record(service, running, range(10), a=lambda step: 1.0, b=lambda step: 2.0)
    service.get(path)
    service.record(running, events.Rewound(to_step=4))
    assert [series["x"][-1] for series in service.get(path)["series"]] == [4, 4]
    record(service, running, [5], a=lambda step: 7.0)
    assert [series["last"] for series in service.get(path)["series"]] == [7.0, 2.0]


def test_a_step_recorded_again_replaces_the_point(service, running):
    path = f"/jobs/{running.job_id}/metrics"
    record(service, running, range(10), a=lambda step: 1.0)
    service.get(path)
    record(service, running, [3], a=lambda step: 5.0)
    [series] = service.get(path)["series"]
    assert (series["count"], series["y"][3], series["last"]) == (10, 5.0, 1.0)


def test_the_least_recently_used_jobs_are_evicted(service, shapes):
    cache, job_ids, queries = MetricCurveCache(max_points=25), [], []
    with service.database.read() as session:
        for _ in range(4):
            lease = service.claim(service.submit()["id"])
            record(service, lease, range(10), a=lambda step: 1.0)
            session.rollback()
            assert len(cache.get(session, lease.job_id, 100)["train/a"].steps) == 10
            job_ids.append(lease.job_id)
        event.listen(service.database.engine, "before_cursor_execute", lambda *query: queries.append(query[2]))

        def is_cached(job_id):
            queries.clear()
            cache.get(session, job_id, 100)
            return not queries

        assert [is_cached(job_id) for job_id in reversed(job_ids)] == [True, True, False, False]


@pytest.mark.parametrize("x", ["epoch", "time"])
def test_a_long_curve_has_epochs_and_times(service, running, x):
    record(service, running, range(3000), a=lambda step: float(step % 7))
    series = service.get(f"/jobs/{running.job_id}/metrics", params={"x": x})["series"][0]
    steps = service.get(f"/jobs/{running.job_id}/metrics")["series"][0]["x"]
    assert len(series["x"]) == len(steps)
    if x == "epoch":
        assert series["x"] == [step // 10 + 1 for step in steps]


def test_metrics_are_available_as_csv(service, running):
    record(service, running, [1, 2], a=lambda step: step / 2, b=lambda _: None)
    response = service.client.get(f"/jobs/{running.job_id}/metrics", headers={"Accept": "text/csv"})
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(response.text)))
    assert rows == [
        ["key", "step", "value"],
        ["train/a", "1", "0.5"],
        ["train/a", "2", "1.0"],
        ["train/b", "1", ""],
        ["train/b", "2", ""],
    ]
