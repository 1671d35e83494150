"""The closed list of codes, docs/errors.md, against the sources."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.http import errors as problems
from store.states import EndReason, WaitingReason

ROOT = Path(__file__).parents[2]
PLACES = {"ApiError": 1, "InvalidField": 1, "NotFoundError": 0, "_unauthorised": 0}
"""Which argument of a call is a code."""
CHECKS_OF_PLANS = "api/plans/checks.py"
"""Names checks by the fields they look at."""

_spec = importlib.util.spec_from_file_location("docs_errors", ROOT / "docs" / "errors.py")
assert _spec and _spec.loader
errors = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(errors)


def test_the_page_is_what_the_sources_say():
    """Otherwise: `python docs/errors.py`."""
    assert errors.PAGE.read_text() == errors.page()


def test_every_code_that_the_service_can_answer_is_listed_and_no_other():
    raised = {
        code for file in sorted((ROOT / "api").rglob("*.py")) for code in _codes(ast.parse(file.read_text()), file)
    }
    assert len(raised) > 20
    framework = {*problems._CODE_OF_STATUS.values(), "bad_request", "internal_error"}
    by_class = {error.code for error in errors._subclasses(errors.FrsError)} | set(WaitingReason)
    assert raised - errors.ANSWERS.keys() - by_class == set(), "say in docs/errors.py what to do about it"
    assert errors.ANSWERS.keys() - raised - framework - by_class == set(), "nobody answers this any more"


def test_every_reason_to_wait_or_to_end_is_listed():
    assert errors.WAITING_HINTS.keys() == set(WaitingReason)
    assert errors.ENDS.keys() == set(EndReason)
    assert errors.DATASET.keys() == set(errors.dataset_codes())
    assert {error.end_reason for error in errors._subclasses(errors.FrsError)} <= set(EndReason)


def test_every_code_has_a_next_step():
    rows = [line.strip("| \n").split(" | ") for line in errors.PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 90
    for row in rows:
        assert all(len(cell.strip()) > 2 for cell in row), row
        assert row[-1].endswith("."), row


def test_every_refusal_is_made_with_a_hint():
    """Nobody is sent away without a next step."""
    assert all(error.hint_by_default for error in errors._subclasses(errors.FrsError))
    made = [
        (file.name, node.lineno, len(node.args) + len(node.keywords) - len({"errors", "headers"} & _keywords(node)))
        for file in sorted((ROOT / "api").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and _name(node) in ("ApiError", "InvalidField")
    ]
    assert len(made) > 20
    assert [call for call in made if call[2] < 4] == []


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('raise ApiError(409, "name_taken", "x", "y")', {"name_taken"}),
        ('raise InvalidField("loc", "no_such_thing", "x", "y")', {"no_such_thing"}),
        ('named_file(root, path, "loc", code="weights_not_found")', {"weights_not_found"}),
        ('def f(*, code: str = "files_not_found"): ...', {"files_not_found"}),
        ('print("not_a_code")', set()),
    ],
)
def test_the_search_finds_codes(source, codes):
    assert set(_codes(ast.parse(source), Path("api/x.py"))) == codes


def _codes(tree: ast.AST, file: Path) -> Iterator[str]:
    if file.as_posix().endswith(CHECKS_OF_PLANS):
        return
    for node in ast.walk(tree):
        for value in _candidates(node):
            if (
                isinstance(value, ast.Constant)
                and isinstance(value.value, str)
                and re.fullmatch("[a-z_]+", value.value)
            ):
                yield value.value


def _candidates(node: ast.AST) -> Iterator[ast.AST | None]:
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "code")
        place = PLACES.get(_name(node))
        yield from node.args[place : place + 1] if place is not None else ()
        yield from (argument for argument in node.args[-1:] if _name(node) == "_named")
    if isinstance(node, ast.FunctionDef):
        named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        yield from (default for argument, default in named if argument.arg == "code")


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _keywords(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}
