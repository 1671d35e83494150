import pytest
from export_reports import FILE
from rich.console import Console

from frs.cli import report_text
from frs.cli.report_text import conclusion
from frs.evaluation.report import MissingRun, Report, Scores, build
from frs.evaluation.verdict import Comparison, ImageInterval, Interval, Pair, SeedInterval
from frs.facts import RunFacts


def scores(mAP: float, large: float | None = None) -> Scores:
    return Scores(metrics={"bbox_mAP": mAP, "bbox_mAP_l": large}, per_class={"a": mAP})


def comparison_with(low: float, high: float, seeds: tuple[float, float, int] | None = None) -> Comparison:
    """Return a comparison with an interval over images and, from (low, high, n), one over seeds."""
    images = ImageInterval(
        low=low, high=high, level=0.95, resamples=1000, images=150, by_number={"bbox_mAP": Interval(low=low, high=high)}
    )
    seed_interval = SeedInterval(low=seeds[0], high=seeds[1], n=seeds[2], level=0.95, mean=0.1) if seeds else None
    pairs = [Pair(seed=seed, student=0.5, baseline=0.4, gain=0.1) for seed in range(seeds[2] if seeds else 1)]
    return Comparison(gain=0.1, image_interval=images, seed_interval=seed_interval, pairs=pairs)


def report(
    student: Scores | None, teacher: Scores | None, baseline: Scores | None, comparison: Comparison | None = None
) -> Report:
    students, baselines = ([run] if run else [] for run in (student, baseline))
    return build(students, teacher, baselines, pairs=1, expects_teacher=True, facts={}, comparison=comparison)


def report_of(comparison: Comparison) -> Report:
    return report(scores(0.5), scores(0.6), scores(0.4), comparison)


def test_the_rows_are_teacher_baseline_student_and_gain() -> None:
    complete = report(scores(0.5, 0.7), scores(0.6, 0.8), scores(0.4, 0.6), comparison_with(0.05, 0.15))
    assert [row.role for row in complete.rows] == ["teacher", "baseline", "student", "gain"]
    assert complete.rows[-1].metrics == {"bbox_mAP": pytest.approx(0.1), "bbox_mAP_l": pytest.approx(0.1)}
    assert complete.per_class["a"]["gain"] == pytest.approx(0.1)
    assert (complete.status, complete.verdict, complete.gap_closed) == ("complete", "improved", pytest.approx(0.5))


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.2, "improved"), (-0.01, 0.2, "no_difference"), (-0.2, -0.01, "worse")]
)
def test_the_verdict_follows_the_interval(low: float, high: float, verdict: str) -> None:
    result = report_of(comparison_with(low, high))
    assert (result.verdict, result.verdict_by) == (verdict, "images")


def test_with_one_seed_the_caveat_names_the_variation_between_seeds() -> None:
    result = report_of(comparison_with(0.01, 0.2))
    assert result.caveat is not None
    assert "not the variation between seeds" in result.caveat and "one pair" in result.caveat
    assert result.caveat in conclusion(result)


def test_the_advice_follows_the_verdict_in_the_text() -> None:
    assert "\nMore seeds? The verdict rests on one pair of runs" in conclusion(report_of(comparison_with(0.01, 0.2)))


def test_a_partial_report_has_no_advice() -> None:
    assert report(scores(0.5), scores(0.6), None).advice == []


@pytest.mark.parametrize(("seeds", "verdict", "by"), [(2, "improved", "images"), (3, "no_difference", "seeds")])
def test_the_interval_over_seeds_decides_from_three_seeds_on(seeds: int, verdict: str, by: str) -> None:
    result = report_of(comparison_with(0.01, 0.2, seeds=(-0.1, 0.3, seeds)))
    assert (result.verdict, result.verdict_by) == (verdict, by)


def test_the_rows_are_means_over_the_seeds() -> None:
    students, baselines = [scores(0.5, 0.2), scores(0.7)], [scores(0.4), scores(0.4)]
    comparison = comparison_with(0.1, 0.2)
    result = build(students, None, baselines, pairs=2, expects_teacher=False, facts={}, comparison=comparison)
    rows = {row.role: row.metrics for row in result.rows}
    assert rows["student"] == {"bbox_mAP": pytest.approx(0.6), "bbox_mAP_l": None}
    assert rows["gain"]["bbox_mAP"] == pytest.approx(0.2)


def test_without_a_baseline_the_verdict_is_no_baseline() -> None:
    result = build([scores(0.5)], scores(0.6), [], pairs=0, expects_teacher=True, facts={})
    assert (result.status, result.verdict, result.gap_closed) == ("complete", "no_baseline", None)


def test_a_report_is_partial_until_all_runs_are_evaluated_and_compared() -> None:
    assert report(scores(0.5), scores(0.6), None).status == "partial"
    assert report(None, scores(0.6), scores(0.4)).verdict is None
    assert report(scores(0.5), scores(0.6), scores(0.4)).status == "partial"


def test_a_failed_run_is_listed_with_its_reason() -> None:
    missing = MissingRun(job_id="job_1", what="baseline", status="failed", reason="diverged: NaN.")
    result = build([scores(0.5)], scores(0.6), [], pairs=1, expects_teacher=True, facts={}, waiting_for=[missing])
    assert (result.status, result.waiting_for) == ("partial", [missing])
    assert "baseline job_1: failed, diverged: NaN." in conclusion(result)


def test_a_size_without_objects_has_no_gain() -> None:
    assert report_of(comparison_with(0.1, 0.2)).rows[-1].metrics["bbox_mAP_l"] is None


def test_a_teacher_weaker_than_the_baseline_leaves_no_gap() -> None:
    assert report(scores(0.5), scores(0.3), scores(0.4)).gap_closed is None


def test_the_measured_costs_are_shown() -> None:
    facts = {
        "teacher_parameters": 2_000_000,
        "student_parameters": 500_000,
        "student_flops": 3e9,
        "teacher_latency_ms": None,
    }
    text = conclusion(report_of(comparison_with(0.1, 0.2)).model_copy(update={"facts": RunFacts(**facts)}))
    assert "M parameters: teacher 2, student 0.5" in text and "GFLOPs: student 3" in text and "ms an image" not in text


def test_weights_are_shown_with_their_target_and_the_papers_weights() -> None:
    facts = {
        "weights": {"feature": 0.0209, "logit": 0.0, "ramp_from": 60},
        "weights_shares": {"feature": 30.0},
        "weights_paper": {"feature": 0.1, "logit": 0.05},
        "warnings": ["The teacher reaches mAP 0.0050."],
    }
    text = conclusion(report_of(comparison_with(0.1, 0.2)).model_copy(update={"facts": RunFacts(**facts)}))
    assert "feature weight: 0.0209, calibrated to 30 times the task's gradient (the paper's: 0.1)" in text
    assert "logit weight" not in text
    assert "Warning: The teacher reaches mAP 0.0050." in text


def test_exported_files_are_shown_below_the_student() -> None:
    result = report_of(comparison_with(0.05, 0.15)).model_copy(update={"files": [FILE]})
    console = Console(width=100, record=True)
    console.print(report_text.table(result))
    rows = [line.split() for line in console.export_text().splitlines()]
    names = [row[0] for row in rows]
    assert names.index("student-int8.onnx") == names.index("gain") - 1
    assert ["student-int8.onnx", "40.0"] in [row[:2] for row in rows]
    line = "student-int8.onnx: 3.7 MB, 10.2 ms an image on one CPU thread, loses 10.00 points of mAP, more than 0.5"
    assert line in report_text.conclusion(result).splitlines()
