"""Code in a spec is never executed: every form in every field, resolved like in the engine, under an audit hook."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_hook import AuditHook
from request_places import JOB, REFERENCES, places, with_value

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECRET = "canary-secret-8c1f"


def texts(canary: str) -> list[str]:
    touch = f"touch {canary}"
    return [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "mmengine.registry.build_from_cfg",
        "torch.hub.load",
        "antigravity",
        "{{$FRS_CANARY_SECRET:x}}",
        "{{ $FRS_CANARY_SECRET }}",
        "{{ fileDirname }}",
        "{{_base_.model}}",
        "${FRS_CANARY_SECRET}",
        "$FRS_CANARY_SECRET",
        "%FRS_CANARY_SECRET%",
        "{FRS_CANARY_SECRET}",
        f"$({touch})",
        f"`{touch}`",
        f"; {touch} #",
        f"__import__('os').system('{touch}')",
        f"!!python/object/apply:os.system ['{touch}']",
        f"eval:open('{canary}', 'w')",
        "lambda: 0",
        "mmdet::../../../../../etc/passwd.py",
        "mmdet::gfl/../../../x.py",
        "mmdet::gfl/..py",
        "mmdet::_base_/models/x.py",
        "mmdet::gfl/gfl_r50_fpn_1x_coco.py\n",
        "mmdet::gfl/gfl_r50_fpn_1x_coco.pyc",
        "mmpretrain::resnet/resnet50_8xb32_in1k.py",
        "local::gfl/x.py",
        f"mmdet::{canary}.py",
        "torchvision://resnet50",
        "open-mmlab://resnet50",
        "pickle://x",
    ]


def objects(canary: str) -> list[Any]:
    system = {"type": "os.system", "command": f"touch {canary}"}
    return [
        system,
        {"type": "builtins.exec", "source": f"open('{canary}', 'w')"},
        {"type": "subprocess.Popen", "args": ["touch", canary]},
        {"type": "mmdet.ResNet", "init_cfg": {"type": "Pretrained", "checkpoint": f"/{canary}"}},
        {"_base_": f"{canary}.py"},
        {"_delete_": True, **system},
        {"custom_imports": {"imports": ["antigravity"], "allow_failed_imports": False}},
        {"__class__": "os.system"},
        {"$ref": f"file://{canary}"},
        {"py/object/apply": "os.system", "args": [f"touch {canary}"]},
        {"__reduce__": ["os.system", [f"touch {canary}"]]},
        [system],
        [[["os.system", f"touch {canary}"]]],
    ]


def added(canary: str) -> list[dict[str, Any]]:
    """Extra fields with a meaning in mmengine."""
    names = (
        "type",
        "_base_",
        "_delete_",
        "_scope_",
        "custom_imports",
        "custom_hooks",
        "init_cfg",
        "model",
        "pipeline",
        "train_cfg",
        "default_hooks",
        "load_from",
        "work_dir",
        "launcher",
        "__class__",
        "config_file",
        "env_cfg",
    )
    values = [*objects(canary)[:3], "os.system"]
    return [{name: value} for name in names for value in values]


def hostile(canary: str) -> Iterator[Any]:
    for base in (JOB, *REFERENCES):
        paths = places(base) if base is JOB else (place for place in places(base) if place[0] in ("teacher", "student"))
        for place in paths:
            for value in [*texts(canary), *objects(canary)]:
                yield with_value(base, place, value)
            for extra in added(canary)[::4]:
                target = base
                for step in place:
                    target = target[step]
                if isinstance(target, dict):
                    yield with_value(base, place, target | extra)
    for extra in added(canary):
        yield JOB | extra


@pytest.fixture
def audit(tmp_path: Path) -> dict[str, Any]:
    work = tmp_path / "work"
    work.mkdir()
    specs = [json.dumps(spec) for spec in hostile(str(work / "canary"))]
    environment = {**os.environ, "FRS_CANARY_SECRET": SECRET, "PYTHONPATH": f"{ROOT}:{HERE}"}
    completed = subprocess.run(
        [sys.executable, HERE / "render_specs.py", work],
        input="\n".join(specs),
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=work,
    )
    assert completed.returncode == 0
    return json.loads(completed.stdout.splitlines()[-1]) | {"tried": len(specs)}


def test_nothing_in_a_spec_is_executed_imported_or_expanded(audit):
    assert audit["hits"] == []
    assert audit["tried"] > 2500 and audit["valid"] + audit["refused"] == audit["tried"]
    assert audit["valid"] > 100, "some of the texts are valid in free-text fields"


def test_the_audit_hook_records_processes_and_files(tmp_path):
    """Otherwise the test above would be meaningless."""
    audit_hook = AuditHook()
    with audit_hook.record([tmp_path]) as events:
        (tmp_path / "fine").touch()
        os.system("true")  # noqa: S605
        subprocess.run(["true"], check=True)
        Path("/etc/hostname").exists() and Path("/etc/passwd").read_text()
    assert [line.partition(" ")[0] for line in events][:1] == ["os.system"]
    assert any(line.startswith("subprocess.Popen") for line in events) and any("/etc/passwd" in line for line in events)
    assert not any("fine" in line for line in events)
