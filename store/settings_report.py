"""The settings in effect, and environment variables that look like settings but are none."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from store.settings import Settings

OTHER_VARIABLES = {
    "FRS_TRAINER_NETWORK": "worker: `1` gives trainers the network; by default, none where the kernel allows it.",
    "FRS_URL": "command line: address of the service.",
    "FRS_API_KEY": "command line: API key.",
}
"""Variables with the prefix that are no fields of `Settings`, and their readers."""
COMPOSE_VARIABLES = (
    *("FRS_API_IMAGE", "FRS_WORKER_IMAGE", "FRS_API_MEMORY", "FRS_WORKER_MEMORY", "FRS_SHM_SIZE"),
    *("FRS_DATASETS_DIR", "FRS_MODELS_DIR", "FRS_PUBLISH", "FRS_INNER_ONLY", "FRS_WORKERS", "FRS_WORKER_STOP_GRACE"),
    *("FRS_SHARE_ADDRESS", "FRS_SHARE_POSTGRES_PORT", "FRS_SHARE_REDIS_PORT"),
)
"""Variables that the compose files read from `.env`, which the containers therefore also have."""
_INTERNAL_VARIABLES = ("FRS_JAIL", "FRS_PARENT_PID")
_MASK = "***"


def variable(field: str) -> str:
    """Return the environment variable of a field of `Settings`."""
    return f"FRS_{field.upper()}"


def read_settings() -> Settings:
    """Return the settings of the environment. Raises SystemExit with a message that names each invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise SystemExit(invalid_settings(error)) from None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield a message for each variable with the prefix `FRS_` that has no effect."""
    known = {*map(variable, Settings.model_fields), *OTHER_VARIABLES, *COMPOSE_VARIABLES, *_INTERNAL_VARIABLES}
    for name in sorted(environment):
        if name.upper().startswith("FRS_") and name.upper() not in known:
            closest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            hint = f"did you mean {closest[0]}?" if closest else "docs/settings.md lists all settings."
            yield f"The variable {name} is not a setting and has no effect; {hint}"


def report(settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    """Return one line per setting: variable, value without passwords, and source."""
    rows = [
        (variable(name), _text(getattr(settings, name)), name in settings.model_fields_set)
        for name in Settings.model_fields
    ]
    rows += [(name, environment[name], True) for name in ["FRS_TRAINER_NETWORK"] if name in environment]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name:{width}}  {'environment' if is_set else 'default':11}  {value}" for name, value, is_set in rows]
    return "\n".join([*lines, *unknown_variables(environment)])


def invalid_settings(error: ValidationError) -> str:
    """Return the message of each invalid setting, with the name of its variable."""
    return "; ".join(
        ": ".join([*(variable(str(part)) for part in detail["loc"][:1]), detail["msg"].removeprefix("Value error, ")])
        for detail in error.errors(include_input=False)
        if detail["type"] != "default_factory_not_called"  # of a default that depends on an invalid setting
    )


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    text = "" if value is None else str(value)
    text = re.sub(r"(https?://|://[^:@/]*:).*@", rf"\1{_MASK}@", text)  # a user name in https://... may be a token
    return re.sub(r"((?i:[?&]\w*(?:password|secret|key|token)\w*)=)[^&]*", rf"\1{_MASK}", text)
