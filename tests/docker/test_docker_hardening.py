"""Hardening of images and containers, checked with `docker inspect` and from inside the containers."""

import json
import re
from pathlib import Path

import pytest
from stack import CANARY, ROOT, Images, Stack, build, inspect, run

pytestmark = pytest.mark.docker
FRS_SERVICES = ("api", "worker")
ALL = (*FRS_SERVICES, "postgres", "redis")
API_MB = 400
"""Maximum size of the API image without its base image."""


def test_the_api_image_is_small_and_has_no_torch(images: Images):
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert base
    sizes = {name: inspect(name)["Size"] >> 20 for name in (*images, base[1])}
    print(f"\nMB: {sizes}")
    assert sizes[images.api] - sizes[base[1]] < API_MB
    run(["docker", "run", "--rm", images.api, "python", "-c", "import api.app, cli.main"])
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        run(["docker", "run", "--rm", images.api, "python", "-c", "import torch"])
    assert run(["docker", "run", "--rm", "--user", "0", images.api, "find", "/", "-xdev", "-iname", "*torch-*"]) == ""


@pytest.mark.parametrize("image", FRS_SERVICES)
def test_a_code_change_rebuilds_only_the_last_layer(images: Images, checkout: Path, image: str):
    """A rebuild takes seconds: the layers of the installed packages are unchanged."""
    before = inspect(getattr(images, image))["RootFS"]["Layers"]
    source = checkout / "store" / "__init__.py"
    text = source.read_text()
    source.write_text(f"{text}\nCHANGED = True\n")
    try:
        after = inspect(build(checkout, image))["RootFS"]["Layers"]
    finally:
        source.write_text(text)
        build(checkout, image)
    assert before[:-1] == after[:-1] and before[-1] != after[-1]


@pytest.mark.parametrize("image", FRS_SERVICES)
def test_no_secret_is_in_an_image(images: Images, image: str, tmp_path: Path):
    name = getattr(images, image)
    assert CANARY not in run(["docker", "history", "--no-trunc", name]) + json.dumps(inspect(name))
    files = run(
        [
            "docker",
            "run",
            "--rm",
            "--user",
            "0",
            "--entrypoint",
            "sh",
            name,
            "-c",
            f"grep -rlF {CANARY} /opt /data /etc /tmp || true",
        ]
    )
    assert files == ""


@pytest.mark.parametrize("service", ALL)
def test_containers_have_minimal_privileges(stack: Stack, service: str):
    host = stack.inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"] and not host["Privileged"]
    assert host["CapDrop"] == ["ALL"] and bool(host["CapAdd"]) == (service == "postgres")
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["PidsLimit"] > 0
    assert not any("docker.sock" in bind for bind in host["Binds"])


@pytest.mark.parametrize("service", FRS_SERVICES)
def test_a_container_runs_unprivileged_and_writes_only_to_its_own_folders(stack: Stack, service: str):
    assert stack.inside(service, "id", "-u").strip() == "10001"
    status = dict(line.split(":\t", 1) for line in stack.inside(service, "cat", "/proc/self/status").splitlines())
    assert status["NoNewPrivs"] == "1"
    assert all(int(status[name], 16) == 0 for name in ("CapEff", "CapPrm", "CapBnd", "CapInh"))
    for folder in ("/", "/opt/frs", "/etc", "/datasets", "/models"):
        with pytest.raises(AssertionError, match="Read-only|denied"):
            stack.inside(service, "touch", f"{folder}/written")
    stack.inside(service, "sh", "-c", "touch /data/written /tmp/written && rm /data/written /tmp/written")


def test_only_the_api_port_is_published_and_only_on_loopback(stack: Stack):
    published = {service: stack.inspect(service)["NetworkSettings"]["Ports"] for service in ALL}
    open_ports = {service: [p for p in ports.values() if p] for service, ports in published.items()}
    assert {service: bool(ports) for service, ports in open_ports.items()} == {name: name == "api" for name in ALL}
    assert [binding["HostIp"] for bindings in open_ports["api"] for binding in bindings] == ["127.0.0.1"]


def test_a_worker_reaches_only_the_services(stack: Stack):
    code = "import socket; socket.create_connection(('1.1.1.1', 53), 3)"
    with pytest.raises(AssertionError, match="OSError|unreachable|timed out"):
        stack.inside("worker", "python", "-c", code)


def test_a_trainer_cannot_read_secrets_of_other_processes(stack: Stack):
    """Observed over several health checks, whose processes have the container's environment."""
    job_id = stack.submit(schedule__max_steps=100_000)
    stack.wait_for_step(job_id, 1)
    processes = json.loads(stack.inside("worker", "python", "-c", READ_ENVIRONMENTS))
    stack.client.post(f"/jobs/{job_id}/cancel")
    stack.wait_until_ended(job_id)
    read, hidden = processes["read"], processes["hidden"]
    assert any("FRS_JAIL=1" in text for text in read), "the trainer's own environment"
    assert {"tini", "python", "probe"} <= set(hidden)
    for secret in (stack.setting("POSTGRES_PASSWORD"), stack.setting("REDIS_PASSWORD"), stack.key):
        assert not any(secret in text for text in read)


READ_ENVIRONMENTS = """
import json, os, pathlib, time
read, hidden, end = set(), set(), time.monotonic() + 35
while time.monotonic() < end:
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            if int(process.name) != os.getpid():
                read.add((process / "environ").read_bytes().decode(errors="replace"))
        except PermissionError:
            hidden.add(name)
        except OSError:
            pass
print(json.dumps({"read": sorted(read), "hidden": sorted(hidden)}))
"""


def test_without_a_password_nothing_starts(stack: Stack):
    env = stack.source / ".env"
    text = env.read_text()
    env.write_text(re.sub("(?m)^(POSTGRES_PASSWORD|FRS_DATABASE_URL)=.*$", r"\1=", text))
    try:
        with pytest.raises(AssertionError, match="Run make env first"):
            stack.compose("config")
    finally:
        env.write_text(text)


def test_the_service_does_not_start_with_the_example_password(stack: Stack):
    command = ["docker", "run", "--rm", "--env", "FRS_DATABASE_URL=postgresql://frs:change-me@postgres/frs"]
    for image, module in (
        (stack.inspect("api")["Config"]["Image"], "api"),
        (stack.inspect("worker")["Config"]["Image"], "worker"),
    ):
        with pytest.raises(AssertionError, match="make env"):
            run([*command, image, "python", "-m", module])
