"""The settings of a sweep: values of the searched fields by number, and the specs of their jobs.

Settings are computed from the sweep and their number alone, so that no state of a sampler has to be stored.
"""

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from frs.names import add_suffix
from frs.spec import JobSpec
from frs.unknown_fields import describe_unknown_field
from store.sweeps.definition import MAX_TRIALS, SweepSpec

Setting = dict[str, JsonValue]
"""Values of the searched fields, by dotted path."""
_PARTS = ("distillation.", "schedule.", "student.")
_MAX_COMBINATIONS = 10**12
_MAX_LENGTH = 65_536
"""Maximum length of a sweep as JSON."""
_MAX_TAGS = 31
"""Tags of the spec; the id of the sweep is added to them."""


class InvalidSweep(Exception):
    """A sweep that cannot be run; `field` is the dotted path in the request, empty for the request as a whole."""

    def __init__(self, field: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.field, self.message, self.hint = field, message, hint


def check(sweep: SweepSpec) -> list[JobSpec]:
    """Return the specs of all settings, in order. Raises InvalidSweep for the first invalid field or setting."""
    _check_spec(sweep)
    _check_fields(sweep)
    _check_size(sweep)
    _check_rungs(sweep)
    return [_check_setting(sweep, number) for number in range(count_settings(sweep))]


def count_settings(sweep: SweepSpec) -> int:
    """Return the number of settings."""
    return _count_combinations(sweep) if sweep.samples is None else sweep.samples


def setting(sweep: SweepSpec, number: int) -> Setting:
    """Return setting `number`, from 0. Deterministic."""
    if sweep.samples is None:
        return _combination(sweep, number)
    if all(isinstance(dimension, tuple) for dimension in sweep.space.values()):
        chosen = Random(sweep.sampling_seed).sample(range(_count_combinations(sweep)), sweep.samples)
        return _combination(sweep, chosen[number])
    drawn: Setting = {}
    for field, dimension in sweep.space.items():
        random = Random(f"{sweep.sampling_seed}:{number}:{field}")
        drawn[field] = random.choice(dimension) if isinstance(dimension, tuple) else dimension.draw(random)
    return drawn


def trial_spec(sweep: SweepSpec, sweep_id: str, number: int, setting_number: int, rung: int, seed: int) -> JobSpec:
    """Return the spec of the trial `number`: one setting with one tuning seed, at the length of its rung."""
    spec = _spec_of(sweep, setting(sweep, setting_number))
    epochs = sweep.rungs[rung]
    schedule: dict[str, Any] = {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    return _variant(sweep, spec, sweep_id, f"-trial{number}", schedule, baseline=False)


def confirming_spec(sweep: SweepSpec, sweep_id: str, setting_number: int) -> JobSpec:
    """Return the spec of the confirming job: the full schedule on seeds after the tuning seeds, with baselines.

    Kind `train` has no baseline: one run with a new seed.
    """
    spec = _spec_of(sweep, setting(sweep, setting_number))
    baseline = {"seeds": sweep.confirm_seeds} if spec.kind == "distill" else False
    schedule = {"seed": sweep.first_confirming_seed}
    return _variant(sweep, spec, sweep_id, "-confirm", schedule, baseline=baseline)


def _variant(
    sweep: SweepSpec, spec: JobSpec, sweep_id: str, suffix: str, schedule: Mapping[str, Any], baseline: Any
) -> JobSpec:
    name = sweep.name or spec.name
    changes = {
        "name": name and add_suffix(name, suffix),
        "tags": [*spec.tags, sweep_id],
        "baseline": baseline,
        "schedule": spec.schedule.model_dump() | dict(schedule),
    }
    return JobSpec.model_validate(spec.model_dump() | changes)


def _spec_of(sweep: SweepSpec, values: Setting) -> JobSpec:
    """Return the spec with these values, without a baseline. Raises ValidationError, InvalidSweep."""
    content = sweep.spec.model_dump(mode="json") | {"baseline": False}
    for field, value in values.items():
        try:
            content = _with_value(content, field.split("."), value)
        except ValueError as error:
            raise _invalid(field, str(error), "The documentation of the job spec lists the fields.") from None
    return JobSpec.model_validate(content)


def _with_value(content: Any, path: list[str], value: JsonValue) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"The field above `{path[0]}` has no fields of its own.")
    first, *remaining = path
    return {**content, first: _with_value(content.get(first) or {}, remaining, value) if remaining else value}


def _count_combinations(sweep: SweepSpec) -> int:
    return math.prod(len(dimension) for dimension in sweep.space.values() if isinstance(dimension, tuple))


def _combination(sweep: SweepSpec, number: int) -> Setting:
    """Return combination `number` of the listed values; the last field changes fastest."""
    values: Setting = {}
    for field, dimension in reversed(sweep.space.items()):
        assert isinstance(dimension, tuple), "a grid has lists only"
        number, index = divmod(number, len(dimension))
        values[field] = dimension[index]
    return {field: values[field] for field in sweep.space}


def _check_spec(sweep: SweepSpec) -> None:
    spec = sweep.spec
    if len(sweep.model_dump_json()) > _MAX_LENGTH:
        hint = "Shorten lists such as `schedule.lr_schedule.milestones`: each trial stores them again."
        raise InvalidSweep("", f"The sweep has more than {_MAX_LENGTH:,} characters of JSON.", hint)
    if spec.kind not in ("distill", "train"):
        hint = "Use kind `distill` or `train`."
        raise InvalidSweep("spec.kind", f"Kind `{spec.kind}` trains nothing that could be tuned.", hint)
    if sweep.first_confirming_seed + sweep.confirm_seeds > 2**32:
        hint = "Use a smaller seed."
        raise InvalidSweep("spec.schedule.seed", "The seed is too large for this number of seeds after it.", hint)
    if len(spec.tags) > _MAX_TAGS:
        hint = f"Use at most {_MAX_TAGS} tags."
        raise InvalidSweep("spec.tags", "There is no room for the sweep's id, which its jobs have as a tag.", hint)


def _check_fields(sweep: SweepSpec) -> None:
    for field, dimension in sweep.space.items():
        _check_field(sweep, field)
        if not isinstance(dimension, tuple):
            if sweep.strategy == "grid":
                raise _invalid(field, "A grid needs a list of values.", "List values, or use `random` or `asha`.")
        elif any(value in dimension[:i] for i, value in enumerate(dimension)):
            raise _invalid(field, "The list has a value twice.", "Remove one of the two.")


def _check_field(sweep: SweepSpec, field: str) -> None:
    if field != "method" and not field.startswith(_PARTS):
        hint = "Search `method` and fields of `distillation`, `schedule` and `student`."
        raise _invalid(field, "This field cannot be searched.", hint)
    if field == "schedule.seed":
        raise _invalid(field, "A sweep sets the seeds itself.", "Set `seeds` and `confirm_seeds`.")
    if sweep.strategy == "asha" and field in ("schedule.epochs", "schedule.max_steps"):
        raise _invalid(field, "`asha` sets the length of the schedule itself.", "Remove the field.")
    for other in sweep.space:
        if field.startswith(f"{other}."):
            raise _invalid(field, f"The space has `{other}` as well, which contains this field.", "Remove one of them.")


def _check_size(sweep: SweepSpec) -> None:
    combinations, settings = _count_combinations(sweep), count_settings(sweep)
    only_lists = all(isinstance(dimension, tuple) for dimension in sweep.space.values())
    if sweep.samples is not None and only_lists and combinations < settings:
        hint = "Lower `samples`, or use strategy `grid`."
        raise InvalidSweep("samples", f"The lists have only {combinations} combinations.", hint)
    if combinations > _MAX_COMBINATIONS:
        hint = 'Use fewer values, or a range such as {"uniform": [0, 1]}.'
        raise InvalidSweep("space", f"The lists have more than {_MAX_COMBINATIONS:,} combinations.", hint)
    trials = settings * sweep.seeds
    if trials > sweep.max_jobs:
        field = "space" if sweep.samples is None else "samples"
        hint = f"Use fewer values or seeds{'' if sweep.max_jobs == MAX_TRIALS else ', or raise `max_jobs`'}."
        message = f"{settings} settings with {sweep.seeds} seeds are {trials} trials; the limit is {sweep.max_jobs}."
        raise InvalidSweep(field, message, hint)


def _check_rungs(sweep: SweepSpec) -> None:
    if sweep.strategy != "asha":
        return
    schedule = sweep.spec.schedule
    if schedule.epochs is None or schedule.max_steps is not None:
        hint = "Set `schedule.epochs`, and remove `schedule.max_steps`."
        raise InvalidSweep("spec.schedule.epochs", "`asha` shortens the schedule in epochs.", hint)
    if len(sweep.rungs) == 1:
        message = (
            f"With {sweep.samples} samples and {schedule.epochs} epochs there is no shorter schedule to begin with."
        )
        hint = f"Use at least {sweep.reduction} samples and {sweep.reduction * sweep.min_epochs} epochs, or `random`."
        raise InvalidSweep("samples", message, hint)


def _check_setting(sweep: SweepSpec, number: int) -> JobSpec:
    """Return the spec of a setting. Raises InvalidSweep with the field that causes the error, if that is known."""
    values = setting(sweep, number)
    prefix = f"Setting {number + 1} of {count_settings(sweep)}"
    hint = "Correct the space; the documentation of the job spec has the limits of each field."
    try:
        spec = _spec_of(sweep, values)
    except ValidationError as error:
        field, message = _describe(error, values)
        raise InvalidSweep(f"space.{field}" if field else "space", f"{prefix} is invalid: {message}", hint) from None
    init = getattr(spec.student, "init", None)
    if not isinstance(init, str) and init != getattr(sweep.spec.student, "init", None):
        raise _invalid("student.init", "Only `random` and `imagenet` can be searched.", "Post one sweep per weights.")
    if sweep.strategy == "asha" and spec.schedule.lr_schedule.milestones is not None:
        message = "`asha` cannot shorten a schedule with milestones in epochs."
        raise InvalidSweep("spec.schedule.lr_schedule.milestones", message, "Remove them: the defaults scale.")
    return spec


def _describe(error: ValidationError, values: Setting) -> tuple[str, str]:
    """Return the searched field that causes the error, empty if several could, and the message."""
    details = error.errors(include_url=False, include_input=False)
    field, detail = next(((field, detail) for detail in details if (field := _cause(detail, values))), ("", details[0]))
    if detail["type"] == "extra_forbidden":
        return field, describe_unknown_field(JobSpec, detail["loc"])
    return field, detail["msg"].removeprefix("Value error, ")


def _cause(detail: ErrorDetails, values: Setting) -> str:
    """Return the searched field at the place of an error or, if it is the only one there, below it; else nothing."""
    path = [str(part) for part in detail["loc"]]
    for field in values:
        if _is_subsequence(field.split("."), path):
            return field
    below = [field for field in values if _is_subsequence(path, field.split("."))]
    return below[0] if len(below) == 1 else ""


def _is_subsequence(names: list[str], path: list[str]) -> bool:
    """Return whether `path` has the names in this order; pydantic's paths also have the names of union members."""
    remaining = iter(path)
    return all(name in remaining for name in names)


def _invalid(field: str, message: str, hint: str) -> InvalidSweep:
    return InvalidSweep(f"space.{field}", message, hint)
