"""Specs as people keep them: a YAML or JSON file, with `--set key=value` changes on top."""

from pathlib import Path
from typing import Any

import yaml

from frs.errors import InvalidSpec

Content = dict[str, Any]


def read(path: Path) -> Content:
    """Raises InvalidSpec for what is no file, no YAML or no mapping."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{path} is neither YAML nor JSON: {error}.") from None
    if not isinstance(content, dict):
        raise InvalidSpec(f"{path} holds no job spec.")
    return content


def apply_changes(content: Content, changes: list[str]) -> Content:
    """`schedule.max_steps=2` and the like; values are YAML. Raises InvalidSpec."""
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidSpec(f"--set {text}: expected KEY=VALUE.", "For example --set schedule.epochs=4.")
        content = _with(content, key.split("."), _value(text, value), text)
    return content


def _with(content: Any, path: list[str], value: Any, text: str) -> Content:
    if not isinstance(content, dict):
        raise InvalidSpec(f"--set {text}: {path[0]!r} is below something that has no fields.")
    first, *rest = path
    return {**content, first: _with(content.get(first) or {}, rest, value, text) if rest else value}


def _value(text: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise InvalidSpec(f"--set {text}: the value is no YAML.") from None
