"""Spec files: YAML or JSON, with changes of the form `KEY=VALUE` (`--set`) applied to them."""

from pathlib import Path
from typing import Any

import yaml

from frs.errors import InvalidSpec

Content = dict[str, Any]


def read(path: Path) -> Content:
    """Return the file's content. Raise InvalidSpec if it is unreadable, not YAML or not a mapping."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidSpec(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidSpec(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{path} is neither YAML nor JSON: {error}.") from None
    if not isinstance(content, dict):
        raise InvalidSpec(f"{path} does not contain a job spec.")
    return content


def apply_changes(content: Content, changes: list[str]) -> Content:
    """Return `content` with changes such as `schedule.max_steps=2` applied; values are YAML.

    Raises InvalidSpec if a change has no `=`, an invalid value, or a key below a field that is not a mapping.
    """
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InvalidSpec(f"--set {change}: expected KEY=VALUE.", "For example --set schedule.epochs=4.")
        content = _set_field(content, key.split("."), _parse_value(change, value), change)
    return content


def _set_field(content: Any, path: list[str], value: Any, change: str) -> Content:
    if not isinstance(content, dict):
        raise InvalidSpec(f"--set {change}: the field above {path[0]!r} has no fields of its own.")
    first, *remaining = path
    new_value = _set_field(content.get(first) or {}, remaining, value, change) if remaining else value
    return {**content, first: new_value}


def _parse_value(change: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise InvalidSpec(f"--set {change}: the value is not valid YAML.") from None
