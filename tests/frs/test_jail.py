"""Isolation is irreversible, so each test isolates a new process."""

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
REPORT = """
import json, os, resource, socket, struct
from frs.isolation.jail import isolate
from frs.isolation.process import die_with_parent
jail = isolate({arguments})
die_with_parent()
def can_connect(address):
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError:
        return False
    return True
def can_read(pid, name):
    try:
        return bool(open(f"/proc/{{pid}}/{{name}}", "rb").read())
    except OSError:
        return False
def can_open_parent_namespace():
    try:
        return bool(os.open(f"/proc/{{os.getppid()}}/ns/net", os.O_RDONLY))
    except OSError:
        return False
server = socket.create_server(("127.0.0.1", 0))
signal = __import__("ctypes").c_int()
__import__("ctypes").CDLL(None).prctl(2, __import__("ctypes").byref(signal))
print(json.dumps({{
    "network": jail.network, "text": str(jail),
    "outside": can_connect(("127.0.0.1", {port})), "loopback": can_connect(server.getsockname()),
    "interfaces": [name for _, name in socket.if_nameindex()], "reads_parent": can_read(os.getppid(), "environ"),
    "opens_parent_namespace": can_open_parent_namespace(), "reads_itself": can_read(os.getpid(), "environ"),
    "death_signal": signal.value,
    "core": resource.getrlimit(resource.RLIMIT_CORE), "shm": os.access("/dev/shm", os.W_OK),
    "privileges": "NoNewPrivs:\\t1" in open("/proc/self/status").read(), "user": os.getuid(), "pid": os.getpid(),
}}))
"""


@pytest.fixture
def outside_port():
    """Port of a server in this process's network namespace."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def run_python(code: str, user: int | None = None, **variables: str) -> Any:
    """Return the JSON that `code` prints, with the process id as `started`; root can start it as `user`."""
    interpreter = sys.executable if user is None else shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if interpreter is None:
        pytest.skip("there is no Python that another user may run")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "FRS_PARENT_PID": str(os.getpid()), **variables}
    process = subprocess.Popen(
        [interpreter, "-c", code], stdout=subprocess.PIPE, user=user, group=user, env=environment, cwd="/"
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(output) | {"started": process.pid}


def users() -> list[Any]:
    """Return the users to test with: the current one and, as root, an unprivileged one."""
    return [None, NOBODY] if os.geteuid() == 0 else [None]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces exist only on Linux")
@pytest.mark.parametrize("user", users())
def test_an_isolated_process_has_only_its_own_loopback(outside_port, user):
    result = run_python(REPORT.format(arguments="", port=outside_port), user)
    if result["network"]:
        assert "this kernel does not allow" in result["text"]
        pytest.skip(result["text"])
    assert result["text"] == "The trainer runs without network."
    assert (result["outside"], result["loopback"], result["interfaces"]) == (False, True, ["lo"])
    assert result["privileges"] and result["core"] == [0, 0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces exist only on Linux")
@pytest.mark.parametrize("user", users())
def test_isolation_keeps_pid_user_shared_memory_and_death_signal(outside_port, user):
    result = run_python(REPORT.format(arguments="", port=outside_port), user)
    assert result["pid"] == result["started"] and result["death_signal"] == 9
    assert result["user"] == (os.getuid() if user is None else user)
    assert result["shm"] and result["reads_itself"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces exist only on Linux")
@pytest.mark.parametrize("user", users())
def test_an_isolated_process_cannot_read_its_parents_environment_or_open_its_namespace(outside_port, user):
    fork = "import os\nos.environ['FRS_PARENT_PID'] = str(os.getpid())\nif os.fork():\n    os._exit(os.wait()[1])\n"
    result = run_python(fork + REPORT.format(arguments="", port=outside_port), user)
    if result["network"]:
        pytest.skip(result["text"])
    assert not result["reads_parent"] and not result["opens_parent_namespace"]


def test_an_operator_can_allow_the_network(outside_port):
    result = run_python(REPORT.format(arguments="network=True", port=outside_port))
    assert result["network"] and result["outside"] and "the operator allows it" in result["text"]


def test_a_process_that_cannot_be_isolated_reports_it_and_continues(outside_port):
    start_thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    result = run_python(start_thread + REPORT.format(arguments="", port=outside_port))
    assert result["network"] and result["outside"] and "this kernel does not allow" in result["text"]


def test_the_command_is_isolated_before_numpy_starts_threads():
    code = "import frs.cli.main, json; from frs.isolation.early import JAIL; import os\n" + (
        "print(json.dumps({'network': JAIL.network, 'requested': 'FRS_JAIL' in os.environ, 'text': str(JAIL)}))"
    )
    result = run_python(code, FRS_JAIL="1")
    assert not result["requested"], "a child process must not isolate itself again"
    assert not result["network"] or "threads" not in result["text"]


@pytest.mark.parametrize(
    ("statement", "exception"),
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
def test_resources_are_limited(tmp_path, statement, exception):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "victim").touch()
    code = f"""
import json, os, pathlib
from frs.isolation import resource_limits
folder = {str(folder)!r}
resource_limits.limit_resources(memory=300 << 20, seconds=1, file_bytes=1 << 20, files=50)
restricted = resource_limits.write_only_below(pathlib.Path(folder))
exception = None
try:
    {statement}
except BaseException as error:
    exception = type(error).__name__
print(json.dumps({{"exception": exception, "restricted": restricted}}))
"""
    result = run_python(code)
    if exception == "PermissionError" and not result["restricted"]:
        pytest.skip("this kernel has no Landlock")
    assert result["exception"] == exception
