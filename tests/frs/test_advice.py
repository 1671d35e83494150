import pytest

from frs.evaluation.advice import Training, advise
from frs.evaluation.verdict import Comparison, ImageInterval, Interval, Pair, SeedInterval

SCORES = {"teacher": 0.6, "baseline": 0.4, "student": 0.5}
LEVEL_TRAINING = Training(curve=[(100, 0.495), (200, 0.5)], end_reason="completed")


def comparison(low: float, high: float, seeds: int = 3) -> Comparison:
    """Return a comparison of `seeds` pairs whose intervals over images and seeds are `low` to `high`."""
    images = ImageInterval(
        low=low, high=high, level=0.95, resamples=1000, images=150, by_number={"bbox_mAP": Interval(low=low, high=high)}
    )
    gain = (low + high) / 2
    return Comparison(
        gain=gain,
        image_interval=images,
        seed_interval=SeedInterval(low=low, high=high, level=0.95, mean=gain, n=seeds) if seeds > 1 else None,
        pairs=[Pair(seed=seed, student=0.4 + gain, baseline=0.4, gain=gain) for seed in range(seeds)],
    )


def topics(
    compared: Comparison,
    scores: dict[str, float | None] | None = None,
    gap_closed: float | None = 0.5,
    training: Training = LEVEL_TRAINING,
) -> list[str]:
    return [advice.topic for advice in advise(compared, scores or dict(SCORES), gap_closed, training)]


def test_an_improvement_over_three_seeds_asks_for_nothing() -> None:
    assert topics(comparison(0.05, 0.15)) == []


def test_one_pair_of_runs_asks_for_more_seeds() -> None:
    (advice,) = advise(comparison(0.05, 0.15, seeds=1), SCORES, 0.5, LEVEL_TRAINING)
    assert advice.topic == "more_seeds"
    assert "one pair of runs" in advice.text and "`baseline: {seeds: 3}`" in advice.text


def test_no_difference_in_one_pair_of_runs_names_the_smallest_gain_that_it_could_show() -> None:
    (advice,) = advise(comparison(-0.03, 0.05, seeds=1), SCORES, 0.1, LEVEL_TRAINING)
    assert "On 150 images it cannot show a gain of less than about 4.0 points." in advice.text


@pytest.mark.parametrize(("low", "high", "outlook"), [(-0.01, 0.15, "may show"), (-0.15, 0.01, "may as well confirm")])
def test_no_difference_over_three_seeds_asks_for_more_seeds_with_the_outlook(
    low: float, high: float, outlook: str
) -> None:
    (advice,) = advise(comparison(low, high), SCORES, 0.0, LEVEL_TRAINING)
    assert (advice.topic, outlook in advice.text) == ("more_seeds", True)


def test_a_teacher_below_the_student_alone_has_to_be_stronger() -> None:
    scores = SCORES | {"teacher": 0.39}
    (advice,) = advise(comparison(0.05, 0.15), scores, None, LEVEL_TRAINING)
    assert (advice.topic, "not better" in advice.text) == ("stronger_teacher", True)


def test_a_student_close_to_its_teacher_needs_a_stronger_one() -> None:
    assert topics(comparison(0.05, 0.15), gap_closed=0.9) == ["stronger_teacher"]


def test_no_difference_under_a_teacher_with_a_small_lead_asks_for_a_stronger_one() -> None:
    assert topics(comparison(-0.05, 0.08), SCORES | {"teacher": 0.42}, 0.75) == ["stronger_teacher", "more_seeds"]
    assert topics(comparison(-0.05, 0.08)) == ["more_seeds"]


@pytest.mark.parametrize("end", ["stopped_early", "time_limit"])
def test_a_run_that_ended_before_its_last_step_has_to_be_longer(end: str) -> None:
    training = Training(LEVEL_TRAINING.curve, end)
    assert topics(comparison(0.05, 0.15), training=training) == ["longer_training"]


def test_a_curve_that_still_rises_asks_for_longer_training_with_its_steps() -> None:
    training = Training([(100, 0.3), (200, None), (300, 0.45), (400, 0.5)], "completed")
    (advice,) = advise(comparison(0.05, 0.15), SCORES, 0.5, training)
    assert advice.topic == "longer_training"
    assert "rose by 5.0 points from step 300 to step 400" in advice.text


def test_a_worse_student_asks_for_weaker_distillation() -> None:
    assert topics(comparison(-0.15, -0.05)) == ["weaker_distillation"]


def test_two_students_that_find_nothing_have_to_train_longer_before_anything_else() -> None:
    scores = {"teacher": 0.009, "student": 0.0, "baseline": 0.001}
    (advice,) = advise(comparison(-0.001, 0.001, seeds=1), scores, None, Training([(12, 0.0)], "stopped_early"))
    assert advice.topic == "longer_training"
    assert "says nothing about distillation" in advice.text
