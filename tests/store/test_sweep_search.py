"""The decisions of a search: settings by number, promotions, the best setting, intervals. Without a database."""

import math
from statistics import mean

import pytest
from pydantic import ValidationError
from scipy import stats
from sweep_harness import DISTILL, TRAIN, sweep_spec

from store.sweeps import intervals, search, space
from store.sweeps.search import TrialResult
from store.sweeps.space import InvalidSweep

RATE = "schedule.optimizer.learning_rate"
ASHA = {"strategy": "asha", "samples": 9, "space": {RATE: {"log_uniform": [1e-4, 1e-2]}}}


def run_search(spec, score_of):
    """Run a search one trial at a time; return all trials."""
    trials = []
    while runs := search.next_runs(spec, trials, 1):
        trials += [TrialResult(run, ended=True, score=score_of(run)) for run in runs]
    return trials


def test_a_grid_has_every_combination_once():
    spec = sweep_spec(DISTILL, space={"method": ["frs", "logit"], RATE: [0.1, 0.01, 0.001]})
    settings = [space.setting(spec, number) for number in range(space.count_settings(spec))]
    assert [(values["method"], values[RATE]) for values in settings] == [
        (method, rate) for method in ("frs", "logit") for rate in (0.1, 0.01, 0.001)
    ]


def test_a_random_setting_depends_on_the_seed_and_its_number_alone():
    spaces = {RATE: {"log_uniform": [1e-4, 1e-2]}, "schedule.batch_size": {"int_uniform": [2, 8]}}
    spaces |= {"schedule.flip_prob": {"uniform": [0, 1]}, "student.neck_channels": [32, 64]}
    spec = sweep_spec(space=spaces, strategy="random", samples=50)
    settings = [space.setting(spec, number) for number in range(50)]
    assert settings == [space.setting(spec, number) for number in range(50)]
    assert settings != [space.setting(spec.model_copy(update={"sampling_seed": 1}), number) for number in range(50)]
    assert all(1e-4 <= values[RATE] <= 1e-2 for values in settings)
    assert {values["schedule.batch_size"] for values in settings} == set(range(2, 9))
    below = sum(values[RATE] < 1e-3 for values in settings)
    assert 15 < below < 35, "half of the logarithmic range lies below 1e-3"


def test_random_settings_of_lists_are_distinct():
    spec = sweep_spec(space={RATE: [0.1, 0.2, 0.3], "schedule.batch_size": [1, 2, 4]}, strategy="random", samples=9)
    assert len({tuple(space.setting(spec, number).values()) for number in range(9)}) == 9


def test_each_setting_is_run_with_every_tuning_seed_before_the_next_one():
    spec = sweep_spec(DISTILL, seeds=2)
    runs = search.next_runs(spec, [], 4)
    assert [(run.setting, run.seed) for run in runs] == [(0, 5), (0, 6), (1, 5), (1, 6)]
    assert search.next_runs(spec, [TrialResult(run, True, 0.5) for run in runs], 9) == [
        search.Run(2, 0, 5),
        search.Run(2, 0, 6),
    ]


def test_asha_promotes_the_best_third_to_schedules_three_times_as_long():
    spec = sweep_spec(**ASHA)
    assert spec.rungs == [1, 3, 9]
    trials = run_search(spec, lambda run: 0.9 - run.setting / 10)
    by_rung = {rung: [trial.run.setting for trial in trials if trial.run.rung == rung] for rung in range(3)}
    assert by_rung == {0: list(range(9)), 1: [0, 1, 2], 2: [0]}


def test_asha_promotes_a_better_setting_that_ends_late():
    """As published, it then promotes more than a third: the best so far was another one."""
    spec = sweep_spec(**ASHA)
    trials = run_search(spec, lambda run: run.setting / 10)
    assert [trial.run.setting for trial in trials if trial.run.rung == 1][:2] == [2, 3]
    assert search.best(spec, trials).setting == 8


def test_asha_waits_for_all_seeds_of_a_setting():
    spec = sweep_spec(**ASHA, seeds=2)
    first = [TrialResult(search.Run(setting, 0, 0), True, 0.5) for setting in range(9)]
    assert {run.rung for run in search.next_runs(spec, first, 9)} == {0}


def test_a_failed_setting_counts_as_the_worst_and_is_never_promoted():
    spec = sweep_spec(**ASHA)
    trials = run_search(spec, lambda run: None if run.setting in (0, 1, 2, 3, 4, 5) else 0.5)
    assert {trial.run.setting for trial in trials if trial.run.rung} <= {6, 7, 8}


def test_the_best_setting_has_the_longest_schedule_whatever_shorter_ones_reached():
    spec = sweep_spec(**ASHA)
    trials = run_search(spec, lambda run: 0.9 - run.setting / 10 - run.rung / 2)
    assert search.best(spec, trials).rung == 2


def test_a_setting_without_the_result_of_a_seed_is_not_chosen():
    spec = sweep_spec(seeds=2)
    trials = [
        TrialResult(run, True, None if (run.setting, run.seed) == (0, 1) else 0.9 - run.setting / 10)
        for run in search.next_runs(spec, [], 6)
    ]
    assert search.best(spec, trials).setting == 1


def test_equal_settings_are_ranked_by_their_number():
    spec = sweep_spec()
    trials = run_search(spec, lambda run: 0.5)
    assert [result.setting for result in search.ranked(spec, trials)] == [0, 1, 2]


def test_the_budget_of_jobs_ends_an_asha_search():
    spec = sweep_spec(**ASHA, max_jobs=10)
    trials = run_search(spec, lambda run: run.setting / 10)
    assert len(trials) == 10 and not search.is_within_budget(spec, trials)


@pytest.mark.parametrize("count", [2, 3, 10, 32])
def test_the_interval_of_a_mean_is_students(count):
    values = [math.sin(number) for number in range(count)]
    interval = intervals.mean_interval(values)
    low, high = stats.t.interval(0.95, count - 1, loc=mean(values), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)
    assert intervals.mean_interval(values[:1]) is None


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("owner", ["mallory"]),
        ("kind", ["evaluate"]),
        ("priority", [100]),
        ("dataset", ["other"]),
        ("teacher.init.detector", ["alices"]),
        ("__class__", ["x"]),
        ("schedule", [{"seed": 3}]),
        ("schedule.seed", [1, 2]),
        ("schedule.__class__", ["x"]),
        ("schedule.image_size.0", [64]),
        ("schedule.learning_rat", [0.1]),
        ("schedule.optimizer.learning_rate.x", [0.1]),
        ("schedule.optimizer.learning_rate", [0.1, -1]),
        ("schedule.optimizer.learning_rate", [0.1, float("nan")]),
        ("schedule.optimizer.learning_rate", [0.1, float("inf")]),
        ("schedule.optimizer.learning_rate", [0.1, True]),
        ("schedule.optimizer.learning_rate", [0.1, {"a": 1}]),
        ("schedule.optimizer.learning_rate", [0.1, 0.1]),
        ("schedule.optimizer.learning_rate", {"uniform": [0.1, 0.2]}),
        ("student.init", [{"detector": "alices"}]),
        ("student.init.weights", ["alices.pth"]),
        ("student.backbone.depth", [18, 19]),
    ],
)
def test_an_invalid_dimension_is_refused_with_its_field(field, values):
    spec = sweep_spec(
        DISTILL | {"schedule": {"image_size": [64, 64], "optimizer": {"learning_rate": 0.1}}}, space={field: values}
    )
    with pytest.raises(InvalidSweep) as error:
        space.check(spec)
    assert error.value.field.startswith(f"space.{field.removesuffix('.weights')}"), error.value.field
    assert error.value.hint


@pytest.mark.parametrize("field", ["", "Owner", "a..b", "a.", "schedule.optimizer[0]", "a" * 101, "schedule.\u0000"])
def test_a_field_that_is_no_path_is_refused(field):
    with pytest.raises(ValidationError):
        sweep_spec(space={field: [1]})


@pytest.mark.parametrize(
    "values",
    [[], {}, "x", None, {"uniform": [1, 0]}, {"uniform": [0, float("nan")]}, {"log_uniform": [0, 1]}]
    + [{"uniform": [0, 1], "log_uniform": [1, 2]}, {"int_uniform": [0, 0.5]}, list(range(101)), {"normal": [0, 1]}],
)
def test_values_that_are_no_dimension_are_refused(values):
    with pytest.raises(ValidationError):
        sweep_spec(space={RATE: values})


def test_one_invalid_combination_refuses_the_whole_grid():
    spec = sweep_spec(DISTILL, space={"method": ["frs", "pkd"], "distillation.logit_ratio": [1, 2]})
    with pytest.raises(InvalidSweep, match="Setting 4 of 4 is invalid: `logit_ratio` has no effect") as error:
        space.check(spec)
    assert error.value.field == "space"


def test_a_field_inside_another_one_is_refused():
    with pytest.raises(InvalidSweep, match="contains this field"):
        space.check(sweep_spec(space={"student.backbone": [{"depth": 18}], "student.backbone.width": [16, 32]}))


@pytest.mark.parametrize(("strategy", "samples"), [("grid", None), ("random", 400), ("asha", 400)])
def test_a_space_of_astronomical_size_costs_nothing(strategy, samples):
    many = list(range(1, 101))
    spaces = {f"schedule.{name}": many for name in ("batch_size", "accumulate", "patience", "evaluate_every")}
    spaces |= {f"distillation.{name}": many for name in ("feature_ratio", "logit_ratio", "warmup_steps")}
    with pytest.raises(InvalidSweep, match="limit is 500|more than 1,000,000,000,000"):
        space.check(sweep_spec(DISTILL, space=spaces, strategy=strategy, samples=samples))


def test_a_sweep_larger_than_its_budget_is_refused():
    with pytest.raises(InvalidSweep, match="3 settings with 2 seeds are 6 trials; the limit is 5"):
        space.check(sweep_spec(seeds=2, max_jobs=5))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"spec": TRAIN | {"kind": "evaluate"}}, "spec.kind"),
        ({"spec": DISTILL | {"schedule": {"seed": 2**32 - 3}}}, "spec.schedule.seed"),
        ({"spec": DISTILL | {"tags": [f"{number}" for number in range(32)]}}, "spec.tags"),
        (ASHA | {"spec": TRAIN | {"schedule": {}}}, "spec.schedule.epochs"),
        (ASHA | {"spec": TRAIN | {"schedule": {"epochs": 9, "max_steps": 9}}}, "spec.schedule.epochs"),
        (ASHA | {"samples": 2}, "samples"),
        (ASHA | {"min_epochs": 4}, "samples"),
        (ASHA | {"space": {"schedule.epochs": [3, 9]}}, "space.schedule.epochs"),
        (
            ASHA | {"spec": TRAIN | {"schedule": {"epochs": 9, "lr_schedule": {"milestones": [6]}}}},
            "spec.schedule.lr_schedule.milestones",
        ),
        ({"strategy": "random", "samples": 4}, "samples"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_with_its_field(changes, field):
    with pytest.raises(InvalidSweep) as error:
        space.check(sweep_spec(**changes))
    assert error.value.field == field


def test_the_confirming_job_has_the_full_schedule_and_seeds_after_the_tuning_seeds():
    spec = sweep_spec(DISTILL, strategy="asha", samples=3, space={RATE: {"uniform": [0.1, 0.2]}}, seeds=2)
    trial = space.trial_spec(spec, "sweep_x", 1, 0, 0, 6)
    confirming = space.confirming_spec(spec, "sweep_x", 0)
    assert (trial.schedule.epochs, trial.schedule.seed, trial.pairs) == (3, 6, 0)
    assert (confirming.schedule.epochs, confirming.schedule.seed, confirming.pairs) == (9, 7, 3)
    assert trial.schedule.optimizer == confirming.schedule.optimizer
    assert trial.tags == confirming.tags == ("sweep_x",)
