"""Spec files: YAML or JSON, with changes of the form `KEY=VALUE` (`--set`) applied to them."""

import math
from pathlib import Path
from typing import Any

import yaml

from frs.errors import InvalidSpec

Content = dict[str, Any]
_JSON_TYPES = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(yaml.SafeLoader):
    """Reads YAML into the types of JSON: dates are text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _JSON_TYPES  # None: the error for all other tags
    }


def read(path: Path) -> Content:
    """Return the file's content. Raise InvalidSpec if it is unreadable, not YAML or not a mapping."""
    try:
        content = parse(path.read_text(), str(path))
    except OSError as error:
        raise InvalidSpec(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidSpec(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    if not isinstance(content, dict):
        raise InvalidSpec(f"{path} does not contain a job spec.")
    return content


def parse(text: str, source: str) -> Any:
    """Return the value of a text in YAML or JSON.

    Raises InvalidSpec, which names `source` and the field, if the text is neither or if JSON cannot hold its value.
    """
    try:
        return _as_json(yaml.load(text, _Loader), source)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:  # such as `!!int a`, `!!bool a`
        raise InvalidSpec(f"{source} is neither YAML nor JSON: {error}.") from None


def apply_changes(content: Content, changes: list[str]) -> Content:
    """Return `content` with changes such as `schedule.max_steps=2` applied; values are YAML.

    Raises InvalidSpec if a change has no `=`, an invalid value, or a key below a field that is not a mapping.
    """
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InvalidSpec(f"--set {change}: expected KEY=VALUE.", "For example --set schedule.epochs=4.")
        content = _set_field(content, key.split("."), parse(value, f"--set {change}"), change)
    return content


def _set_field(content: Any, path: list[str], value: Any, change: str) -> Content:
    if not isinstance(content, dict):
        raise InvalidSpec(f"--set {change}: the field above {path[0]!r} has no fields of its own.")
    first, *remaining = path
    new_value = _set_field(content.get(first) or {}, remaining, value, change) if remaining else value
    return {**content, first: new_value}


def _as_json(value: Any, source: str, *place: object) -> Any:
    """Return the value with its texts in valid Unicode. Raises InvalidSpec for what JSON cannot hold."""
    where = f"{source}, `{'.'.join(map(str, place))}`" if place else source
    match value:
        case dict():
            for key in value:
                if not isinstance(key, str):
                    raise InvalidSpec(f"{where}: the key {key} is not text.", "Put it in quotes.")
            return {key: _as_json(item, source, *place, key) for key, item in value.items()}
        case list():
            return [_as_json(item, source, *place, index) for index, item in enumerate(value)]
        case float() if not math.isfinite(value):
            raise InvalidSpec(f"{where}: {value} is not a finite number.", "Give a number.")
        case str():  # JSON may write a character as two escapes, which YAML reads as two characters
            try:
                return value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise InvalidSpec(f"{where}: {value!a} has half of a surrogate pair.", "Write it as UTF-8.") from None
    return value
