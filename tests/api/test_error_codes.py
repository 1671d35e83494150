"""The list of error codes in docs/errors.md matches the source code."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import frs.errors
from api.http import errors as http_errors
from store.states import EndReason, WaitingReason

ROOT = Path(__file__).parents[2]
CODE_POSITIONS = {"ApiError": 1, "InvalidField": 1, "NotFoundError": 0, "_unauthorised": 0}
"""Position of the code among the arguments of a call."""
PLAN_CHECKS = "api/plans/checks.py"
"""Names its checks by spec fields, which are no error codes."""

_spec = importlib.util.spec_from_file_location("docs_errors", ROOT / "docs" / "errors.py")
assert _spec and _spec.loader
errors = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(errors)


def test_the_page_is_up_to_date():
    """Run `python docs/errors.py` if this test fails."""
    assert errors.PAGE.read_text() == errors.page()


def test_exactly_the_codes_in_the_source_are_listed():
    raised = {
        code for file in sorted((ROOT / "api").rglob("*.py")) for code in _codes(ast.parse(file.read_text()), file)
    }
    assert len(raised) > 20
    framework = {*http_errors.CODE_OF_STATUS.values(), "bad_request", "internal_error"}
    by_class = {error.code for error in errors.subclasses(errors.FrsError)} | set(WaitingReason)
    assert raised - errors.ANSWERS.keys() - by_class == set(), "add the code to docs/errors.py"
    assert errors.ANSWERS.keys() - raised - framework - by_class == set(), "remove the unused code from docs/errors.py"


def test_every_waiting_reason_and_end_reason_is_listed():
    assert errors.WAITING_HINTS.keys() == set(WaitingReason)
    assert errors.ENDS.keys() == set(EndReason)
    assert errors.DATASET.keys() == set(errors.dataset_codes())
    assert {error.end_reason for error in errors.subclasses(errors.FrsError)} <= set(EndReason)


NOT_OF_THE_USER = {"StorageFull", "CheckpointUnusable", "NodesUnavailable", "FileNotOnNode"}
"""Errors of the engine that its user did not cause: a full disk, for which a job waits, a damaged work folder, and a
host of a job that was lost or does not have its files."""


@pytest.mark.parametrize("error", [*errors.subclasses(frs.errors.FrsError)], ids=lambda error: error.__name__)
def test_no_error_that_a_user_can_cause_alerts_the_operator(error):
    if error.__module__ == "frs.errors" and error.__name__ not in NOT_OF_THE_USER:
        assert error.end_reason != EndReason.INTERNAL_ERROR, "the alert JobsFailInternally fires"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("invalid_spec", "invalid_spec"),
        ("precision_unsupported", "device_unavailable"),
        ("runs_differ", "runs_not_comparable"),
        ("weights_not_found", "bad_weights"),
        ("class_mismatch", "class_mismatch"),
    ],
)
def test_a_job_ends_with_a_reason_that_fits_its_error(code, reason):
    classes = {error.code: error for error in errors.subclasses(frs.errors.FrsError)}
    assert classes[code].end_reason == reason


def test_every_code_has_a_hint():
    rows = [line.strip("| \n").split(" | ") for line in errors.PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 90
    for row in rows:
        assert all(len(cell.strip()) > 2 for cell in row), row
        assert row[-1].endswith("."), row


def test_messages_name_actions_in_words():
    """The page and the command line show them, too; the API's documentation has the calls."""
    for folder in ("api", "frs", "store", "worker"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text())
            docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            texts = [
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings
            ]
            assert [text for text in texts if re.search(r"\b(GET|POST|PUT|PATCH|DELETE) /|probe=true", text)] == [], (
                file
            )


def test_every_api_error_has_a_hint():
    """Every error response contains what to do next."""
    assert all(error.hint_by_default for error in errors.subclasses(errors.FrsError))
    calls = [
        (file.name, node.lineno, len(node.args) + len(node.keywords) - len({"errors", "headers"} & _keywords(node)))
        for file in sorted((ROOT / "api").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and _name(node) in ("ApiError", "InvalidField")
    ]
    assert len(calls) > 20
    assert [call for call in calls if call[2] < 4] == []


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('raise ApiError(409, "name_taken", "x", "y")', {"name_taken"}),
        ('raise InvalidField("loc", "no_such_thing", "x", "y")', {"no_such_thing"}),
        ('resolve_file(root, path, "loc", code="weights_not_found")', {"weights_not_found"}),
        ('def f(*, code: str = "files_not_found"): ...', {"files_not_found"}),
        ('print("not_a_code")', set()),
    ],
)
def test_codes_are_found_in_source_code(source, codes):
    assert set(_codes(ast.parse(source), Path("api/x.py"))) == codes


def _codes(tree: ast.AST, file: Path) -> Iterator[str]:
    if file.as_posix().endswith(PLAN_CHECKS):
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
        position = CODE_POSITIONS.get(_name(node))
        yield from node.args[position : position + 1] if position is not None else ()
        yield from (argument for argument in node.args[-1:] if _name(node) == "_resolve")
    if isinstance(node, ast.FunctionDef):
        defaults = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        yield from (default for argument, default in defaults if argument.arg == "code")


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _keywords(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}
