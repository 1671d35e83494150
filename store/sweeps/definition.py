"""The fields of a sweep: the request body of `POST /sweeps`, which is also stored."""

import math
from random import Random
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, JsonValue, StringConstraints, model_validator

from frs.evaluation.verdict import MIN_SEEDS
from frs.names import Name
from frs.spec import JobSpec
from frs.spec_model import Spec

MAX_TRIALS = 500
"""Maximum number of trials of a sweep."""
MAX_DEPTH = 8
"""Maximum nesting of a value."""
Strategy = Literal["grid", "random", "asha"]
FieldPath = Annotated[str, StringConstraints(pattern=r"^[a-z_]+(\.[a-z0-9_]+)*$", max_length=100)]


def _require_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError("the first bound must be below the second one")
    return bounds


PositiveBound = Annotated[float, Field(gt=0, allow_inf_nan=False)]
IntegerBound = Annotated[int, Field(ge=-(10**9), le=10**9)]


class Uniform(Spec):
    """Numbers of equal probability."""

    uniform: Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_require_order)]
    """[lowest, highest]."""

    def draw(self, random: Random) -> float:
        """Return a number of the range."""
        return _rounded(random.uniform(*self.uniform), self.uniform)


class LogUniform(Spec):
    """Numbers whose logarithms have equal probability."""

    log_uniform: Annotated[tuple[PositiveBound, PositiveBound], AfterValidator(_require_order)]
    """[lowest, highest]; both above 0."""

    def draw(self, random: Random) -> float:
        """Return a number of the range."""
        return _rounded(math.exp(random.uniform(*map(math.log, self.log_uniform))), self.log_uniform)


class IntegerUniform(Spec):
    """Integers of equal probability."""

    int_uniform: Annotated[tuple[IntegerBound, IntegerBound], AfterValidator(_require_order)]
    """[lowest, highest]; both included."""

    def draw(self, random: Random) -> int:
        """Return a number of the range."""
        return random.randint(*self.int_uniform)


def _require_shallow(values: Any) -> Any:
    """Reject deep nesting before pydantic reports an error whose path is as deep."""
    if not _is_shallow(values, MAX_DEPTH):
        raise ValueError(f"values may be nested {MAX_DEPTH} levels deep")
    return values


def _is_shallow(value: Any, levels: int) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in items)


Values = Annotated[tuple[JsonValue, ...], Field(min_length=1, max_length=100), BeforeValidator(_require_shallow)]
Dimension = Values | Uniform | LogUniform | IntegerUniform


class SweepSpec(Spec):
    """A search over fields of a job spec."""

    name: Name | None = None
    """Display name of the sweep."""
    spec: JobSpec
    """The spec of its jobs, of kind `distill` or `train`. `schedule.seed` is the first tuning seed; `baseline` is
    replaced by the sweep's."""
    space: Annotated[dict[FieldPath, Dimension], Field(min_length=1, max_length=16)]
    """The fields to search, by dotted path: a list of values, `{"uniform": [a, b]}`, `{"log_uniform": [a, b]}` or
    `{"int_uniform": [a, b]}`. `method` and fields of `distillation`, `schedule` and `student` can be searched."""
    strategy: Strategy = "grid"
    """`grid`: every combination of the listed values. `random`: `samples` settings drawn at random. `asha`: the same,
    with short schedules first; the best 1 / `reduction` of each length continue with a longer one."""
    samples: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    """Number of settings of `random` and `asha`."""
    sampling_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the random settings."""
    seeds: Annotated[int, Field(ge=1, le=32)] = 2
    """Number of tuning seeds: each setting is trained with each of them, and ranked by its mean mAP."""
    confirm_seeds: Annotated[int, Field(ge=1, le=32)] = MIN_SEEDS
    """Number of new seeds on which the best setting is compared with its baseline; from 3 on, the verdict is over
    seeds."""
    reduction: Annotated[int, Field(ge=2, le=10)] = 3
    """For `asha`: factor between two lengths of the schedule, and between two numbers of settings."""
    min_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """For `asha`: lower limit of the shortest schedule, in epochs."""
    max_jobs: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = MAX_TRIALS
    """Budget of trials. The confirming job and its run group come on top."""
    max_minutes: Annotated[int, Field(ge=1)] | None = None
    """Budget of running time of the trials, summed. When it is used up, no trial is started any more, and the best
    setting so far is confirmed. Absent: no limit."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 2
    """Maximum number of trials in the queue or running at a time."""

    @model_validator(mode="after")
    def _check_samples(self) -> "SweepSpec":
        if (self.strategy == "grid") != (self.samples is None):
            raise ValueError("`samples` belongs to the strategies `random` and `asha`, which need it")
        return self

    @property
    def tuning_seeds(self) -> range:
        """The seeds that choose the setting."""
        return range(self.spec.schedule.seed, self.spec.schedule.seed + self.seeds)

    @property
    def first_confirming_seed(self) -> int:
        """The first of the seeds that confirm the chosen setting; it follows the tuning seeds."""
        return self.tuning_seeds.stop

    @property
    def rungs(self) -> list[int | None]:
        """Epochs of each rung, ascending; [None], the length of `spec`, unless the strategy is `asha`.

        The last rung is the full schedule; each one before is shorter by `reduction`, as long as it has `min_epochs`
        and there are enough settings for one of them to reach the last rung.
        """
        epochs = self.spec.schedule.epochs
        if self.strategy != "asha" or epochs is None:
            return [None]
        lengths = [epochs]
        while lengths[0] // self.reduction >= self.min_epochs and self.reduction ** len(lengths) <= (self.samples or 0):
            lengths.insert(0, lengths[0] // self.reduction)
        return [*lengths]


def _rounded(number: float, bounds: tuple[float, float]) -> float:
    """Return the number within the bounds, with six significant digits, as people write it."""
    return min(max(float(f"{number:.6g}"), bounds[0]), bounds[1])
