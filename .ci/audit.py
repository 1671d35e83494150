"""`make audit`: check requirements.lock for known vulnerabilities. Pass only if every package was looked up.

pip-audit prints "No known vulnerabilities found" even if it could look up nothing, so this script evaluates its report.
"""

import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK, EXPLAINED = ROOT / "requirements.lock", ROOT / "docs" / "audit.md"


def main() -> None:
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    completed = subprocess.run([*command, "-r", LOCK, "-f", "json"], capture_output=True, text=True)
    try:
        report = json.loads(completed.stdout)
    except ValueError:
        sys.exit(f"pip-audit wrote no report, so nothing was audited.\n{completed.stderr[-2000:]}")
    failures = list(judge(report, pinned(LOCK.read_text()), explained(EXPLAINED.read_text())))
    sys.exit("\n".join(failures) if failures else None)


def judge(report: Mapping[str, Any], pins: Collection[str], explanations: Collection[tuple[str, str]]) -> Iterator[str]:
    """Yield a message per failure: a pin that was not audited, or a finding without an entry in `explanations`."""
    skipped = {row["name"]: row["skip_reason"] for row in report["dependencies"] if "skip_reason" in row}
    audited = {_normal(row["name"]): row["vulns"] for row in report["dependencies"] if "vulns" in row}
    if not audited:
        yield "0 packages were audited: the vulnerability service is unreachable or has data on none of them."
    if skipped:
        name, reason = next(iter(skipped.items()))
        yield f"{len(skipped)} packages were skipped, first {name}: {reason}"
    if missing := set(pins) - audited.keys() - {_normal(name) for name in skipped}:
        yield f"{len(missing)} pinned packages are not in the report, first {min(missing)}."
    for name, findings in audited.items():
        for finding in findings:
            ids = {finding["id"], *finding.get("aliases", ())}
            if not any((name, id) in explanations for id in ids):
                fixed = ", ".join(finding.get("fix_versions", ())) or "no version"
                yield f"{name}: {finding['id']} is not explained in docs/audit.md; {fixed} fixes it."


def pinned(lock: str) -> set[str]:
    """Return the normalised names of the packages that a lock file pins."""
    return {_normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}


def explained(page: str) -> set[tuple[str, str]]:
    """Return (package, finding) of each table row such as: | package | `GHSA-...` | why it does not matter here |"""
    rows = re.findall(r"^\| *([A-Za-z0-9._-]+) *\| *`([A-Z]+-[\w-]+)` *\| *\S.{19,}\|", page, re.MULTILINE)
    return {(_normal(package), finding) for package, finding in rows}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
