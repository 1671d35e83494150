"""`make audit` on reports in the format of pip-audit 2.10."""

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
VULNERABLE = [CLEAN[0] | {"vulns": [FINDING]}, CLEAN[1]]
HEAD = "| package | finding | why it does not matter here |\n| --- | --- | --- |\n"


def failures(dependencies, page=HEAD):
    return list(audit.judge({"dependencies": dependencies, "fixes": []}, PINS, audit.explained(page)))


def test_a_report_without_findings_passes():
    assert failures(CLEAN) == []


def test_an_empty_report_fails():
    assert "0 packages were audited" in failures([])[0]


def test_skipped_packages_fail():
    """For this report, recorded without network, pip-audit exits with 0 and "No known vulnerabilities found"."""
    assert [line.split(":")[0] for line in failures(SKIPPED)] == [
        "0 packages were audited",
        "2 packages were skipped, first celery",
    ]
    assert "1 packages were skipped" in failures([CLEAN[0], SKIPPED[1]])[0]


def test_a_pinned_package_missing_from_the_report_fails():
    assert failures(CLEAN[:1]) == ["1 pinned packages are not in the report, first typing-extensions."]


def test_a_finding_fails_until_it_is_explained():
    [message] = failures(VULNERABLE)
    assert "celery: PYSEC-2021-858" in message and "5.2.2" in message
    reason = "No result backend is configured, so none is trusted."
    for name in (FINDING["id"], *FINDING["aliases"]):
        assert failures(VULNERABLE, f"{HEAD}| celery | `{name}` | {reason} |\n") == []


def test_an_explanation_needs_the_right_package_the_right_finding_and_a_reason():
    for row in (
        "| kombu | `PYSEC-2021-858` | No result backend is configured. |",
        "| celery | `PYSEC-2021-859` | No result backend is configured. |",
        "| celery | `PYSEC-2021-858` |  |",
        "| celery | `PYSEC-2021-858` | fine |",
        "celery PYSEC-2021-858 does not matter here, for good reasons",
    ):
        assert len(failures(VULNERABLE, HEAD + row + "\n")) == 1, row


def test_every_constraint_is_in_the_lock():
    lock = audit.LOCK.read_text()
    constraints = audit.pinned((audit.ROOT / "constraints.txt").read_text())
    assert len(constraints) > 100
    assert constraints <= audit.pinned(lock)
    assert "://" not in lock and "/" not in lock


def test_constraints_and_lock_name_the_same_versions():
    constraints = set((audit.ROOT / "constraints.txt").read_text().lower().split())
    locked = {line.split()[0].lower() for line in audit.LOCK.read_text().splitlines() if "==" in line}
    assert {pin.replace("_", "-") for pin in constraints} <= {pin.replace("_", "-") for pin in locked}
