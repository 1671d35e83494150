import pytest

from frs.cli.report_text import conclusion
from frs.evaluation.report import (
    Comparison,
    ImageInterval,
    Interval,
    MissingRun,
    Pair,
    Report,
    Scores,
    SeedInterval,
    build,
)


def scores(mAP: float, large: float | None = None) -> Scores:
    return Scores(metrics={"bbox_mAP": mAP, "bbox_mAP_l": large}, per_class={"a": mAP})


def compared(low: float, high: float, seeds: tuple[float, float, int] | None = None) -> Comparison:
    """With an interval over the images, and one over so many seeds."""
    images = ImageInterval(
        low=low, high=high, level=0.95, resamples=1000, images=150, by_number={"bbox_mAP": Interval(low=low, high=high)}
    )
    over = SeedInterval(low=seeds[0], high=seeds[1], n=seeds[2], level=0.95, mean=0.1) if seeds else None
    pairs = [Pair(seed=seed, student=0.5, baseline=0.4, gain=0.1) for seed in range(seeds[2] if seeds else 1)]
    return Comparison(gain=0.1, image_interval=images, seed_interval=over, pairs=pairs)


def report(
    student: Scores | None, teacher: Scores | None, baseline: Scores | None, comparison: Comparison | None = None
) -> Report:
    sides = [[run] if run else [] for run in (student, baseline)]
    return build(sides[0], teacher, sides[1], pairs=1, wants_teacher=True, facts={}, comparison=comparison)


def judged(comparison: Comparison) -> Report:
    return report(scores(0.5), scores(0.6), scores(0.4), comparison)


def test_rows_stand_in_the_papers_order_with_the_gain() -> None:
    whole = report(scores(0.5, 0.7), scores(0.6, 0.8), scores(0.4, 0.6), compared(0.05, 0.15))
    assert [row.role for row in whole.rows] == ["teacher", "baseline", "student", "gain"]
    assert whole.rows[-1].metrics == {"bbox_mAP": pytest.approx(0.1), "bbox_mAP_l": pytest.approx(0.1)}
    assert whole.per_class["a"]["gain"] == pytest.approx(0.1)
    assert (whole.status, whole.verdict, whole.gap_closed) == ("complete", "improved", pytest.approx(0.5))


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.2, "improved"), (-0.01, 0.2, "no_difference"), (-0.2, -0.01, "worse")]
)
def test_the_verdict_follows_the_interval_not_the_difference(low: float, high: float, verdict: str) -> None:
    found = judged(compared(low, high))
    assert (found.verdict, found.verdict_by) == (verdict, "images")


def test_with_one_seed_the_report_says_that_luck_is_not_covered() -> None:
    found = judged(compared(0.01, 0.2))
    assert found.caveat is not None and "luck of training" in found.caveat and "one pair" in found.caveat
    assert found.caveat in conclusion(found)


@pytest.mark.parametrize(("seeds", "verdict", "by"), [(2, "improved", "images"), (3, "no_difference", "seeds")])
def test_from_three_seeds_on_the_interval_over_seeds_decides(seeds: int, verdict: str, by: str) -> None:
    found = judged(compared(0.01, 0.2, seeds=(-0.1, 0.3, seeds)))
    assert (found.verdict, found.verdict_by) == (verdict, by)


def test_rows_of_several_seeds_are_means() -> None:
    students, baselines = [scores(0.5, 0.2), scores(0.7)], [scores(0.4), scores(0.4)]
    found = build(students, None, baselines, pairs=2, wants_teacher=False, facts={}, comparison=compared(0.1, 0.2))
    rows = {row.role: row.metrics for row in found.rows}
    assert rows["student"] == {"bbox_mAP": pytest.approx(0.6), "bbox_mAP_l": None}
    assert rows["gain"]["bbox_mAP"] == pytest.approx(0.2)


def test_without_a_baseline_there_is_no_verdict_on_gain() -> None:
    alone = build([scores(0.5)], scores(0.6), [], pairs=0, wants_teacher=True, facts={})
    assert (alone.status, alone.verdict, alone.gap_closed) == ("complete", "no_baseline", None)


def test_it_is_partial_until_all_are_there_and_compared() -> None:
    assert report(scores(0.5), scores(0.6), None).status == "partial"
    assert report(None, scores(0.6), scores(0.4)).verdict is None
    assert report(scores(0.5), scores(0.6), scores(0.4)).status == "partial"


def test_a_run_that_failed_is_named_with_its_reason() -> None:
    lost = MissingRun(job_id="job_1", what="baseline", status="failed", reason="diverged: NaN.")
    found = build([scores(0.5)], scores(0.6), [], pairs=1, wants_teacher=True, facts={}, waiting_for=[lost])
    assert (found.status, found.waiting_for) == ("partial", [lost])
    assert "baseline job_1: failed, diverged: NaN." in conclusion(found)


def test_a_size_without_objects_has_no_gain() -> None:
    assert judged(compared(0.1, 0.2)).rows[-1].metrics["bbox_mAP_l"] is None


def test_no_gap_is_closed_under_a_weaker_teacher() -> None:
    assert report(scores(0.5), scores(0.3), scores(0.4)).gap_closed is None


def test_costs_are_told_where_they_were_measured() -> None:
    facts = {
        "teacher_parameters": 2_000_000,
        "student_parameters": 500_000,
        "student_flops": 3e9,
        "teacher_latency_ms": None,
    }
    said = conclusion(judged(compared(0.1, 0.2)).model_copy(update={"facts": facts}))
    assert "M parameters: teacher 2, student 0.5" in said and "GFLOPs: student 3" in said and "ms an image" not in said


def test_chosen_weights_stand_beside_what_they_aimed_at_and_the_papers() -> None:
    facts = {
        "weights": {"feature": 0.0209, "logit": 0.0, "ramp_from": 60},
        "weights_shares": {"feature": 30.0},
        "weights_paper": {"feature": 0.1, "logit": 0.05},
        "warnings": ["The teacher reaches mAP 0.0050."],
    }
    said = conclusion(judged(compared(0.1, 0.2)).model_copy(update={"facts": facts}))
    assert "feature weight: 0.0209, for 30 times the task's gradient when it was found (the paper's: 0.1)" in said
    assert "logit weight" not in said
    assert "Warning: The teacher reaches mAP 0.0050." in said
