import pytest

from frs.report import Scores, build


def scores(mAP: float, large: float | None = None) -> Scores:
    return Scores(metrics={"bbox_mAP": mAP, "bbox_mAP_l": large}, per_class={"a": mAP})


def report(student: Scores | None, teacher: Scores | None, baseline: Scores | None, wants_baseline: bool = True):  # type: ignore[no-untyped-def]
    return build(student, teacher, baseline, wants_baseline=wants_baseline, wants_teacher=True, facts={})


def test_rows_stand_in_the_papers_order_with_the_gain() -> None:
    whole = report(scores(0.5, 0.7), scores(0.6, 0.8), scores(0.4, 0.6))
    assert [row.role for row in whole.rows] == ["teacher", "baseline", "student", "gain"]
    assert whole.rows[-1].metrics == {"bbox_mAP": pytest.approx(0.1), "bbox_mAP_l": pytest.approx(0.1)}
    assert whole.per_class["a"]["gain"] == pytest.approx(0.1)
    assert (whole.status, whole.verdict, whole.gap_closed) == ("complete", "improved", pytest.approx(0.5))


@pytest.mark.parametrize(("student", "verdict"), [(0.5, "improved"), (0.4, "no_difference"), (0.3, "worse")])
def test_the_verdict_follows_the_difference(student: float, verdict: str) -> None:
    assert report(scores(student), scores(0.6), scores(0.4)).verdict == verdict


def test_without_a_baseline_there_is_no_verdict_on_gain() -> None:
    alone = report(scores(0.5), scores(0.6), None, wants_baseline=False)
    assert (alone.status, alone.verdict, alone.gap_closed) == ("complete", "no_baseline", None)


def test_it_is_partial_until_both_are_there() -> None:
    assert report(scores(0.5), scores(0.6), None).status == "partial"
    assert report(None, scores(0.6), scores(0.4)).verdict is None


def test_a_size_without_objects_has_no_gain() -> None:
    assert report(scores(0.5), scores(0.6), scores(0.4)).rows[-1].metrics["bbox_mAP_l"] is None


def test_no_gap_is_closed_under_a_weaker_teacher() -> None:
    assert report(scores(0.5), scores(0.3), scores(0.4)).gap_closed is None
