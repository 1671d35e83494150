"""Values of options that no request can contain are refused before one is sent."""

from pathlib import Path
from typing import Any

import pytest

OPTIONS = [
    ("export", "job_1", "--max-drop"),
    ("keys", "add", "a", "--expires-days"),
    ("keys", "add", "a", "--max-disk-gb"),
    ("keys", "rotate", "key_1", "--grace-hours"),
    ("datasets", "upload", "a", "FILE", "--val-fraction"),
    ("distill", "FILE", "--val-fraction"),
]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
def test_a_number_must_be_finite(frs: Any, command: tuple[str, ...], value: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = frs(*(str(tmp_path / "file") if part == "FILE" else part for part in command), value, code=2).stderr
    assert command[-1] in error and "finite number" in error
