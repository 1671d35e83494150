"""Spec files and `--set` hold what JSON can hold; everything else is an error that names the field."""

import json
from pathlib import Path

import pytest

from frs import spec_file
from frs.errors import InvalidSpec


def read(folder: Path, text: str) -> dict[str, object]:
    (folder / "job.yaml").write_text(text)
    return spec_file.read(folder / "job.yaml")


def test_a_date_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, "name: 2026-05-01\nmetadata: {recorded: 2026-05-01 10:00:00}") == {
        "name": "2026-05-01",
        "metadata": {"recorded": "2026-05-01 10:00:00"},
    }
    assert spec_file.apply_changes({}, ["name=2026-05-01"]) == {"name": "2026-05-01"}


def test_a_json_file_may_escape_characters_outside_the_basic_plane(tmp_path: Path) -> None:
    content = {"name": "cells 🔬"}
    assert read(tmp_path, json.dumps(content)) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metadata: {1: a, b: c}", "job.yaml, `metadata`: the key 1 is not text."),
        ("yes: a", "job.yaml: the key True is not text."),
        ("schedule: {epochs: .inf}", "job.yaml, `schedule.epochs`: inf is not a finite number."),
        ("schedule: {train_sizes: [[.nan, 3]]}", "job.yaml, `schedule.train_sizes.0.0`: nan is not a finite"),
        ('name: "a\\ud800"', "job.yaml, `name`: 'a\\ud800' has half"),
    ],
)
def test_what_json_cannot_hold_is_an_error_that_names_the_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        read(tmp_path, text)
    assert message in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    "text",
    ["a: !!timestamp 5", "a: !!binary aGk=", "a: !!set {b}", "a: !!bool maybe", "a: 0x_", "[" * 5000, "a: &a [*a]"],
)
def test_other_yaml_than_json_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSpec, match="neither YAML nor JSON"):
        read(tmp_path, text)


def test_a_change_is_read_as_a_file_is() -> None:
    with pytest.raises(InvalidSpec, match=r"--set schedule.epochs=.nan: .* not a finite number"):
        spec_file.apply_changes({}, ["schedule.epochs=.nan"])
