"""`make audit`: known vulnerabilities of what requirements.lock pins. Passes only if every package has been looked up.

pip-audit says "No known vulnerabilities found" also where it could look up nothing: what counts here is its report.
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
    ended = subprocess.run([*command, "-r", LOCK, "-f", "json"], capture_output=True, text=True)
    try:
        report = json.loads(ended.stdout)
    except ValueError:
        sys.exit(f"pip-audit gave no report, so nothing has been audited.\n{ended.stderr[-2000:]}")
    complaints = list(judge(report, pinned(LOCK.read_text()), explained(EXPLAINED.read_text())))
    sys.exit("\n".join(complaints) if complaints else None)


def judge(report: Mapping[str, Any], pins: Collection[str], explanations: Collection[tuple[str, str]]) -> Iterator[str]:
    """What is wrong; nothing where all of `pins` were audited and each finding is among `explanations`."""
    skipped = {it["name"]: it["skip_reason"] for it in report["dependencies"] if "skip_reason" in it}
    audited = {_normal(it["name"]): it["vulns"] for it in report["dependencies"] if "vulns" in it}
    if not audited:
        yield "0 packages were audited: the vulnerability service cannot be reached, or knows none of them."
    if skipped:
        name, reason = next(iter(skipped.items()))
        yield f"{len(skipped)} packages were skipped, first {name}: {reason}"
    if missing := set(pins) - audited.keys() - {_normal(name) for name in skipped}:
        yield f"{len(missing)} pinned packages are not in the report, first {min(missing)}."
    for name, found in audited.items():
        for finding in found:
            names = {finding["id"], *finding.get("aliases", ())}
            if not any((name, known) in explanations for known in names):
                fixed = ", ".join(finding.get("fix_versions", ())) or "no version"
                yield f"{name}: {finding['id']} is not explained in docs/audit.md; {fixed} mends it."


def pinned(lock: str) -> set[str]:
    return {_normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}


def explained(page: str) -> set[tuple[str, str]]:
    """Package and finding, of rows such as: | package | `GHSA-...` | why it does not matter here |"""
    rows = re.findall(r"^\| *([A-Za-z0-9._-]+) *\| *`([A-Z]+-[\w-]+)` *\| *\S.{19,}\|", page, re.MULTILINE)
    return {(_normal(package), finding) for package, finding in rows}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
