"""mmdet binds mmcv's operators when it is first imported: every module that imports it prepares that."""

import ast
from pathlib import Path

import pytest

import frs

PREPARED = ("mmdet", "mmpretrain")
ROOT = Path(frs.__file__).parent


def imported(path: Path) -> list[str]:
    """Return the names of the modules that a module imports at its top, in order."""
    names: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


USERS = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if path.name != "_mmdet_init.py" and any(name.split(".")[0] in PREPARED for name in imported(path))
]


@pytest.mark.parametrize("path", USERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_that_imports_mmdet_prepares_it_first(path: Path) -> None:
    names = imported(path)
    first = next(index for index, name in enumerate(names) if name.split(".")[0] in PREPARED)
    assert "frs.detectors._mmdet_init" in names[:first]
