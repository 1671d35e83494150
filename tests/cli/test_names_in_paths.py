"""An id or name that the user types is one segment of a path, whatever characters it has."""

import json
from typing import Any

import pytest

from frs_client import ServiceError
from frs_client.requests import path_of

pytestmark = pytest.mark.usefixtures("shapes")


@pytest.mark.parametrize("name", ["shapes#old", "shapes?x", "shapes/", "./shapes", "../datasets/shapes"])
def test_a_name_that_begins_with_that_of_a_data_set_does_not_delete_it(frs: Any, name: str) -> None:
    frs("datasets", "delete", name, "--yes", code=1)
    frs("datasets", "check", name, code=1)
    assert "shapes" in frs("datasets", "list").output


@pytest.mark.parametrize(
    "command",
    [
        *(["job"], ["watch"], ["logs"], ["report"], ["metrics"], ["cancel"], ["stop"], ["pause"], ["resume"]),
        *(["retry"], ["edit", "--name", "n"], ["delete", "--yes"], ["pull"], ["export", "--no-wait"], ["quantize"]),
        *(["sweeps", "show"], ["sweeps", "stop"], ["sweeps", "resume"], ["sweeps", "delete", "--yes"]),
        *(["keys", "rotate"], ["keys", "revoke"], ["webhooks", "deliveries"], ["webhooks", "delete"]),
        *(["datasets", "check"], ["datasets", "delete", "--yes"], ["recipes"], ["submit"], ["plan"]),
    ],
)
@pytest.mark.parametrize("id", ["../jobs", "..", "?limit=1", "#"])
def test_no_command_takes_a_part_of_a_path_or_query_for_an_id(frs: Any, command: list[str], id: str) -> None:
    jobs = frs("jobs", "--json").output
    frs(*command, id, code=1)
    assert json.loads(frs("jobs", "--json").output) == json.loads(jobs)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_a_path_cannot_have_is_an_error(name: str) -> None:
    with pytest.raises(ServiceError, match="is not an id or a name"):
        path_of("datasets", name)


@pytest.mark.parametrize("spec", ["specs/missing.yaml", "shapes.yml", "shapes_gfll", "../jobs", "."])
@pytest.mark.parametrize("command", [["submit"], ["plan"], ["sweep", "--over", "schedule.epochs=1,2"]])
def test_a_spec_that_is_neither_a_file_nor_a_recipe_is_named(frs: Any, command: list[str], spec: str) -> None:
    error = frs(*command, spec, code=1).stderr
    assert f"{spec} is neither a file nor a recipe." in error and "`frs recipes`" in error


def test_a_student_that_is_neither_a_file_nor_a_recipe_is_named(frs: Any) -> None:
    error = frs("distill", "shapes", "--student", "student.yml", code=1).stderr
    assert "student.yml is neither a file nor a recipe." in error
