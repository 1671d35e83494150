"""The decisions of a search, from the trials so far: which run comes next, and which setting is the best.

`grid` and `random` are searches with one rung. `asha` is ASHA (Li et al., MLSys 2020, algorithm 2) with a fixed number
of settings: a promotion is a new job with a longer schedule, from scratch.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from frs.evaluation.verdict import Interval
from store.sweeps.definition import SweepSpec
from store.sweeps.intervals import mean_interval
from store.sweeps.space import count_settings


@dataclass(frozen=True, order=True)
class Run:
    """What a trial runs."""

    setting: int
    rung: int
    seed: int


@dataclass(frozen=True)
class TrialResult:
    """A trial that has been posted."""

    run: Run
    ended: bool
    score: float | None
    """mAP, 0 to 1; None unless the trial has succeeded."""


@dataclass(frozen=True)
class SettingResult:
    """The trials of one setting at one rung."""

    setting: int
    rung: int
    seeds: int
    """Number of tuning seeds: of trials if all of them have been posted."""
    trials: tuple[TrialResult, ...]

    @property
    def scores(self) -> list[float]:
        """The mAP of the trials that have succeeded."""
        return [trial.score for trial in self.trials if trial.score is not None]

    @property
    def ended(self) -> bool:
        """Whether every seed has been posted and has ended."""
        return len(self.trials) == self.seeds and all(trial.ended for trial in self.trials)

    @property
    def mean(self) -> float | None:
        """Mean mAP over the seeds; None unless all of them have succeeded, so that settings are compared fairly."""
        return mean(self.scores) if len(self.scores) == self.seeds else None

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the mean over the seeds; None with fewer than two."""
        return None if self.mean is None else mean_interval(self.scores)


def next_runs(sweep: SweepSpec, trials: Collection[TrialResult], limit: int) -> list[Run]:
    """Return the runs to post next, at most `limit`; empty if nothing is left to post now.

    A setting that was begun is completed first, then settings are promoted, then new ones begun.
    """
    runs: list[Run] = []
    limit = min(limit, sweep.max_jobs - len(trials))
    while len(runs) < limit:
        posted = [*trials, *(TrialResult(run, ended=False, score=None) for run in runs)]
        run = _next_run(sweep, summarise(sweep, posted))
        if run is None:
            break
        runs.append(run)
    return runs


def is_within_budget(sweep: SweepSpec, trials: Collection[TrialResult]) -> bool:
    """Return whether the budget of jobs admits the runs that are left to post now."""
    return len(trials) < sweep.max_jobs or _next_run(sweep, summarise(sweep, trials)) is None


def best(sweep: SweepSpec, trials: Collection[TrialResult]) -> SettingResult | None:
    """Return the setting of the highest mean mAP among those with the longest schedule; None without a result."""
    return next(iter(ranked(sweep, trials)), None)


def ranked(sweep: SweepSpec, trials: Collection[TrialResult]) -> list[SettingResult]:
    """Return the settings with a mean, the best first: by rung, because schedules of other lengths do not compare."""
    with_mean = (result for result in summarise(sweep, trials) if result.mean is not None)
    return sorted(with_mean, key=lambda result: (-result.rung, -(result.mean or 0.0), result.setting))


def summarise(sweep: SweepSpec, trials: Collection[TrialResult]) -> list[SettingResult]:
    """Return the trials by setting and rung, in this order."""
    groups: dict[tuple[int, int], list[TrialResult]] = defaultdict(list)
    for trial in sorted(trials, key=lambda trial: trial.run):
        groups[trial.run.setting, trial.run.rung].append(trial)
    return [SettingResult(*key, sweep.seeds, tuple(group)) for key, group in groups.items()]


def _next_run(sweep: SweepSpec, results: Sequence[SettingResult]) -> Run | None:
    for result in results:
        if len(result.trials) < sweep.seeds:
            posted = {trial.run.seed for trial in result.trials}
            seed = next(seed for seed in sweep.tuning_seeds if seed not in posted)
            return Run(result.setting, result.rung, seed)
    first_seed = sweep.tuning_seeds.start
    for setting, rung in _promotions(sweep, results):
        return Run(setting, rung, first_seed)
    begun = 1 + max((result.setting for result in results), default=-1)
    return Run(begun, 0, first_seed) if begun < count_settings(sweep) else None


def _promotions(sweep: SweepSpec, results: Sequence[SettingResult]) -> Iterator[tuple[int, int]]:
    """Yield the settings to promote and their new rungs, highest rung first.

    A setting is promoted if it is among the best 1 / `reduction` of those that have ended at its rung so far; more are
    promoted in the end if better ones come later. A setting that failed counts among them, as the worst.
    """
    for rung in reversed(range(len(sweep.rungs) - 1)):
        ended = [result for result in results if result.rung == rung and result.ended]
        with_mean = [result for result in ended if result.mean is not None]
        best_first = sorted(with_mean, key=lambda result: (-(result.mean or 0.0), result.setting))
        promoted = {result.setting for result in results if result.rung == rung + 1}
        for result in best_first[: len(ended) // sweep.reduction]:
            if result.setting not in promoted:
                yield result.setting, rung + 1
