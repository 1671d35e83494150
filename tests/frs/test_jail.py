"""Each jail is entered by a process of its own: there is no way out of one."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
LOOK = """
import json, os, resource, socket, struct
from frs.isolation.jail import isolate
from frs.isolation.process import die_with_parent
jail = isolate({arguments})
die_with_parent()
def reaches(address):
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError:
        return False
    return True
def looks_into(pid, what):
    try:
        return bool(open(f"/proc/{{pid}}/{{what}}", "rb").read())
    except OSError:
        return False
def may_go_back():
    try:
        return bool(os.open(f"/proc/{{os.getppid()}}/ns/net", os.O_RDONLY))
    except OSError:
        return False
own = socket.create_server(("127.0.0.1", 0))
signal = __import__("ctypes").c_int()
__import__("ctypes").CDLL(None).prctl(2, __import__("ctypes").byref(signal))
print(json.dumps({{
    "network": jail.network, "said": str(jail), "trap": reaches(("127.0.0.1", {port})), "lo": reaches(own.getsockname()),
    "interfaces": [name for _, name in socket.if_nameindex()], "parent": looks_into(os.getppid(), "environ"),
    "back": may_go_back(), "itself": looks_into(os.getpid(), "environ"), "dies_by": signal.value,
    "core": resource.getrlimit(resource.RLIMIT_CORE), "shm": os.access("/dev/shm", os.W_OK),
    "privileges": "NoNewPrivs:\\t1" in open("/proc/self/status").read(), "user": os.getuid(), "pid": os.getpid(),
}}))
"""


@pytest.fixture
def trap():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def inside(code: str, user: int | None = None, **more: str) -> Any:
    """What a process prints, which root starts as `user`."""
    interpreter = sys.executable if user is None else shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if interpreter is None:
        pytest.skip("no Python that another user may run")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "FRS_PARENT_PID": str(os.getpid()), **more}
    process = subprocess.Popen(
        [interpreter, "-c", code], stdout=subprocess.PIPE, user=user, group=user, env=environment, cwd="/"
    )
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(said) | {"started": process.pid}


def everybody() -> list[Any]:
    return [None, NOBODY] if os.geteuid() == 0 else [None]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")
@pytest.mark.parametrize("user", everybody())
def test_whoever_runs_it_a_jailed_process_has_its_own_loopback_and_nothing_beyond(trap, user):
    seen = inside(LOOK.format(arguments="", port=trap), user)
    if seen["network"]:
        assert "this kernel does not allow" in seen["said"]
        pytest.skip(seen["said"])
    assert seen["said"] == "The trainer runs without network."
    assert (seen["trap"], seen["lo"], seen["interfaces"]) == (False, True, ["lo"])
    assert seen["privileges"] and seen["core"] == [0, 0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")
@pytest.mark.parametrize("user", everybody())
def test_pids_users_shared_memory_and_death_with_the_parent_stay_as_they_are(trap, user):
    seen = inside(LOOK.format(arguments="", port=trap), user)
    assert seen["pid"] == seen["started"] and seen["dies_by"] == 9
    assert seen["user"] == (os.getuid() if user is None else user)
    assert seen["shm"] and seen["itself"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")
@pytest.mark.parametrize("user", everybody())
def test_it_can_neither_go_back_nor_read_the_environment_of_whoever_started_it(trap, user):
    by_the_same_user = (
        "import os\nos.environ['FRS_PARENT_PID'] = str(os.getpid())\nif os.fork():\n    os._exit(os.wait()[1])\n"
    )
    seen = inside(by_the_same_user + LOOK.format(arguments="", port=trap), user)
    if seen["network"]:
        pytest.skip(seen["said"])
    assert not seen["parent"] and not seen["back"]


def test_an_operator_may_leave_it_the_network(trap):
    seen = inside(LOOK.format(arguments="network=True", port=trap))
    assert seen["network"] and seen["trap"] and "the operator allows it" in seen["said"]


def test_where_the_kernel_refuses_it_says_so_and_goes_on(trap):
    busy = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    seen = inside(busy + LOOK.format(arguments="", port=trap))
    assert seen["network"] and seen["trap"] and "this kernel does not allow" in seen["said"]


def test_the_command_enters_it_before_numpy_has_started_threads():
    code = "import frs.cli.main, json; from frs.isolation.early import JAIL; import os\n" + (
        "print(json.dumps({'network': JAIL.network, 'told': 'FRS_JAIL' in os.environ, 'said': str(JAIL)}))"
    )
    seen = inside(code, FRS_JAIL="1")
    assert not seen["told"], "children share the jail they are born in"
    assert not seen["network"] or "threads" not in seen["said"]


@pytest.mark.parametrize(
    ("attempt", "ends"),
    [
        ("bytearray(1 << 30)", "MemoryError"),
        ("open(folder + '/big', 'wb').write(bytes(1 << 21))", "OSError"),
        ("open(folder + '/small', 'wb').write(bytes(1 << 10))", None),
        ("open(folder + '/../beside', 'wb')", "PermissionError"),
        ("os.unlink(folder + '/../victim')", "PermissionError"),
        ("os.mkdir(folder + '/../there')", "PermissionError"),
        ("os.execv('/bin/true', ['true'])", "PermissionError"),
        ("[open('/dev/zero') for _ in range(100)]", "OSError"),
        ("all(iter(lambda: 1, 0))", "CpuTimeExceeded"),
    ],
)
def test_its_means_are_bounded(tmp_path, attempt, ends):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "victim").touch()
    code = f"""
import json, os, pathlib
from frs.isolation import resource_limits
folder = {str(folder)!r}
resource_limits.limit_resources(memory=300 << 20, seconds=1, file_bytes=1 << 20, files=50)
locked = resource_limits.write_only_below(pathlib.Path(folder))
ended = None
try:
    {attempt}
except BaseException as error:
    ended = type(error).__name__
print(json.dumps({{"ended": ended, "locked": locked}}))
"""
    seen = inside(code)
    if ends == "PermissionError" and not seen["locked"]:
        pytest.skip("this kernel has no Landlock")
    assert seen["ended"] == ends
