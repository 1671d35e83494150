"""The service in containers: `docker-compose.yml` with a .env of `docker/env.py`, as its own compose project."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from servers import free_port
from waiting import until

from frs_client import Client, Json

ROOT = Path(__file__).parents[2]
CANARY = "canary-3f0c-in-no-image"
UP_SECONDS = 120
"""Time limit from `up` to healthy, with built images."""
FILES = ("docker-compose.yml",)
SERVICES = ("postgres", "redis", "api", "worker")
JOB: Json = {
    "kind": "distill",
    "dataset": "bccd",
    "teacher": {"architecture": "gfl", "backbone": {"depth": 18, "width": 16}, "neck_channels": 32, "stacked_convs": 1},
    "student": {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 16, "stacked_convs": 1},
    "schedule": {"max_steps": 60, "batch_size": 2, "image_size": [160, 128], "checkpoint_every": 10},
    "distillation": {"accept_weak_teacher": True},
}
for _role in ("teacher", "student"):
    JOB[_role]["init"] = "random"


def compose_command() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


class Images(NamedTuple):
    api: str
    worker: str


class Stack:
    """A running stack. A context manager: leaving it removes containers, networks and volumes."""

    def __init__(
        self, name: str, folder: Path, datasets: Path, *, files: Sequence[str] = FILES, only: str = "", **env: str
    ) -> None:
        """Prepare the stack. `only` is the single service to run; by default all run."""
        self.name, self.folder, self.datasets = name, folder, datasets
        self.url = f"http://127.0.0.1:{free_port()}"
        self.source = folder / "source"
        copy_compose_files(self.source)
        arguments = ["--output", str(self.source), "--datasets", str(datasets), "--models", str(folder / "models")]
        subprocess.run([sys.executable, self.source / "docker" / "env.py", *arguments], check=True, capture_output=True)
        self.key = (self.source / ".secrets" / "api-key").read_text().strip()
        env = {"FRS_PUBLISH": self.url.removeprefix("http://"), **env}
        with (self.source / ".env").open("a") as env_file:
            env_file.writelines(f"\n{name}={value}\n" for name, value in env.items())
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FRS_")}
        self.environment = environment | {"COMPOSE_PROJECT_NAME": name, "COMPOSE_FILE": ":".join(files)}
        self.only = ("--no-deps", only) if only else ()
        self.services = (only,) if only else SERVICES

    def __enter__(self) -> "Stack":
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "--volumes", "--timeout", "5")

    @property
    def client(self) -> Client:
        return Client(self.url, self.key)

    def up(self, *arguments: str) -> None:
        self.compose("up", "--detach", "--no-build", *arguments, *self.only)
        self.wait_until_healthy()

    def compose(self, *arguments: str) -> str:
        return run([*compose_command(), *arguments], cwd=self.source, env=self.environment)

    def backup(self, action: str, folder: Path) -> str:
        """Run docker/backup.py; `action` is backup or restore."""
        script = str(self.source / "docker" / "backup.py")
        return run([sys.executable, script, action, str(folder)], cwd=self.source, env=self.environment)

    def setting(self, name: str) -> str:
        """Return the value of a variable in .env; the last assignment counts."""
        return re.findall(rf"(?m)^{name}=(.*)$", (self.source / ".env").read_text())[-1]

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, service: str) -> Json:
        return inspect(self.containers(service)[0])

    def inside(self, service: str, *command: str) -> str:
        return run(["docker", "exec", self.containers(service)[0], *command])

    def wait_until_healthy(self) -> None:
        def healthy() -> bool:
            containers = {name: self.containers(name) for name in self.services}
            return all(containers.values()) and all(
                inspect(id)["State"]["Health"]["Status"] == "healthy" for ids in containers.values() for id in ids
            )

        until(healthy, UP_SECONDS, lambda: self.compose("ps"))

    def add_bccd(self) -> None:
        self.client.post("/datasets", {"name": "bccd"})

    def submit(self, **changes: Any) -> str:
        spec = json.loads(json.dumps(JOB))
        for path, value in changes.items():
            *folders, name = path.split("__")
            target = spec
            for folder in folders:
                target = target.setdefault(folder, {})
            target[name] = value
        return str(self.client.post("/jobs", spec)["id"])

    def job(self, job_id: str) -> Json:
        return self.client.get(f"/jobs/{job_id}")

    def step(self, job_id: str) -> int:
        try:
            return (self.job(job_id)["progress"] or {}).get("step") or 0
        except Exception:  # the service is restarting
            return 0

    def wait_for_step(self, job_id: str, step: int) -> None:
        until(lambda: self.step(job_id) >= step, 300, lambda: self.logs(job_id))

    def wait_until_ended(self, job_id: str, seconds: float = 600) -> Json:
        until(lambda: self._ended(job_id), seconds, lambda: self.logs(job_id))
        return self.job(job_id)

    def _ended(self, job_id: str) -> bool:
        try:
            return bool(self.job(job_id)["is_terminal"])
        except Exception:  # the service is restarting
            return False

    def logs(self, job_id: str) -> str:
        messages = [line["message"] for line in self.client.each(f"/jobs/{job_id}/logs")]
        return "\n".join(
            [json.dumps(self.job(job_id))[:2000], *messages, self.compose("logs", "--tail", "20", "worker")]
        )


def build(checkout: Path, image: str) -> str:
    """Build an image and return its name."""
    name = f"frs-{image}:test"
    run(
        ["docker", "build", "--quiet", "--file=docker/Dockerfile", f"--target={image}", "--tag", name, "."],
        cwd=checkout,
    )
    return name


def copy_compose_files(to: Path) -> None:
    """Copy the files that compose reads, so that no test changes the .env of this checkout."""
    to.mkdir()
    for name in ("docker", "docker-compose.yml", ".env.example"):
        source = ROOT / name
        shutil.copytree(source, to / name) if source.is_dir() else shutil.copy(source, to / name)


def run(command: Sequence[str], **options: Any) -> str:
    completed = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert completed.returncode == 0, f"{' '.join(command)}\n{completed.stdout[-3000:]}\n{completed.stderr[-3000:]}"
    return completed.stdout


def inspect(name: str) -> Json:
    description: Json = json.loads(run(["docker", "inspect", name]))[0]
    return description


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2).is_success
    except httpx2.RequestError:
        return False
