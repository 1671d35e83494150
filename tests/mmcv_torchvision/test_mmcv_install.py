"""Installation of `mmcv._ext`. Imports cannot be undone, so some tests run in a new interpreter."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmcv import _ext as extension
from mmcv.ops import get_compiler_version, get_compiling_cuda_version
from mmcv.utils.ext_loader import check_ops_exist

from mmcv_torchvision import OperatorUnavailable, install


def run(code: str, *folders: Path) -> str:
    """Return the output of `code`, with packages in `folders` before the installed ones."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, folders), *sys.path])}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_mmdet_can_be_imported_without_the_rest_of_this_project() -> None:
    code = """
import sys, mmcv_torchvision
print(sorted({"mmcv", "mmdet", "mmengine"} & set(sys.modules)))
import mmdet.models
print(sorted({"frs", "store", "worker", "api", "cli"} & {name.partition(".")[0] for name in sys.modules}))
"""
    assert run(code).splitlines()[-2:] == ["[]", "[]"]


def test_a_compiled_extension_takes_precedence(tmp_path: Path) -> None:
    compiled = tmp_path / "mmcv" / "_ext.py"
    compiled.parent.mkdir()
    (compiled.parent / "__init__.py").touch()
    compiled.write_text("compiled = True\n")
    code = "import mmcv_torchvision, mmcv._ext as ext; print(ext.compiled, hasattr(ext, 'nms'), ext.__file__)"
    assert run(code, tmp_path) == f"True False {compiled}"


def test_installation_succeeds_after_a_failed_import_of_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("mmcv_torchvision")]
    monkeypatch.setattr(sys, "meta_path", others)
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    with pytest.raises(ModuleNotFoundError):
        import_module("mmcv._ext")
    install()
    spec = find_spec("mmcv._ext")
    assert spec is not None
    assert spec.origin == "mmcv_torchvision"


def test_installing_twice_adds_one_finder() -> None:
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before


def test_mmcv_finds_all_of_its_operators() -> None:
    assert check_ops_exist()
    assert "torchvision" in get_compiler_version()
    assert isinstance(get_compiling_cuda_version(), str)


def test_an_unavailable_operator_raises_when_called() -> None:
    with pytest.raises(OperatorUnavailable, match=r"carafe_forward.*pip install") as error:
        extension.carafe_forward(1, b=2)
    assert isinstance(error.value, NotImplementedError)
    assert error.value.operator == "carafe_forward"
    assert not hasattr(extension, "__path__")
