"""The verdict on what pip-audit reports; its reports as pip-audit 2.10 writes them."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("ci_audit", Path(__file__).parents[2] / ".ci" / "audit.py")
assert _spec and _spec.loader
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)

PINS = {"celery", "typing-extensions"}
CLEAN = [
    {"name": "celery", "version": "5.7.0", "vulns": []},
    {"name": "typing_extensions", "version": "4", "vulns": []},
]
SKIPPED = [
    {"name": "celery", "skip_reason": "Dependency not found on PyPI and could not be audited: celery (5.7.0)"},
    {"name": "typing-extensions", "skip_reason": "Dependency not found on PyPI and could not be audited: ..."},
]
FINDING = {
    "id": "PYSEC-2021-858",
    "fix_versions": ["5.2.2"],
    "aliases": ["CVE-2021-23727", "GHSA-q4xr-rc97-m4xx"],
    "description": "Celery trusts the messages and metadata stored in backends.",
}
FOUND = [CLEAN[0] | {"vulns": [FINDING]}, CLEAN[1]]
HEAD = "| package | finding | why it does not matter here |\n| --- | --- | --- |\n"


def verdict(dependencies, page=HEAD):
    return list(audit.judge({"dependencies": dependencies, "fixes": []}, PINS, audit.explained(page)))


def test_all_looked_up_and_nothing_found_is_a_pass():
    assert verdict(CLEAN) == []


def test_no_package_audited_is_no_pass():
    assert "0 packages were audited" in verdict([])[0]


def test_packages_that_could_not_be_audited_are_no_pass():
    """pip-audit itself ends with 0 and "No known vulnerabilities found" then: recorded without a network."""
    assert [line.split(":")[0] for line in verdict(SKIPPED)] == [
        "0 packages were audited",
        "2 packages were skipped, first celery",
    ]
    assert "1 packages were skipped" in verdict([CLEAN[0], SKIPPED[1]])[0]


def test_a_pinned_package_that_the_report_leaves_out_is_no_pass():
    assert verdict(CLEAN[:1]) == ["1 pinned packages are not in the report, first typing-extensions."]


def test_a_finding_is_no_pass_until_it_is_explained():
    [said] = verdict(FOUND)
    assert "celery: PYSEC-2021-858" in said and "5.2.2" in said
    reason = "No result backend is configured, so none is trusted."
    for name in (FINDING["id"], *FINDING["aliases"]):
        assert verdict(FOUND, f"{HEAD}| celery | `{name}` | {reason} |\n") == []


def test_an_explanation_counts_for_its_package_and_only_with_a_reason():
    for row in (
        "| kombu | `PYSEC-2021-858` | No result backend is configured. |",
        "| celery | `PYSEC-2021-859` | No result backend is configured. |",
        "| celery | `PYSEC-2021-858` |  |",
        "| celery | `PYSEC-2021-858` | fine |",
        "celery PYSEC-2021-858 does not matter here, for good reasons",
    ):
        assert len(verdict(FOUND, HEAD + row + "\n")) == 1, row


def test_every_pin_of_the_lock_is_expected_and_those_of_the_constraints_are_locked():
    lock = audit.LOCK.read_text()
    constraints = audit.pinned((audit.ROOT / "constraints.txt").read_text())
    assert len(constraints) > 100
    assert constraints <= audit.pinned(lock)
    assert "://" not in lock and "/" not in lock


def test_constraints_and_lock_name_the_same_versions():
    wanted = set((audit.ROOT / "constraints.txt").read_text().lower().split())
    locked = {line.split()[0].lower() for line in audit.LOCK.read_text().splitlines() if "==" in line}
    assert {pin.replace("_", "-") for pin in wanted} <= {pin.replace("_", "-") for pin in locked}
