"""Fixtures: images built from this checkout, and the service in containers."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from stack import CANARY, ROOT, Images, Stack, build, compose_command, run

from frs.dataset.shapes.drawing import draw_dataset


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.exit("These tests need a Docker engine: `docker info` failed.", returncode=5)
    if shutil.which(compose_command()[0]) is None:
        pytest.exit("These tests need `docker compose` or docker-compose.", returncode=5)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files, plus secret files that must not end up in an image."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in run(["git", "ls-files"], cwd=ROOT).splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".secrets").mkdir()
    for name in (".env", ".secrets/api-key", "frs/.env", "docker/password"):
        (folder / name).write_text(f"SECRET={CANARY}\n")
    return folder


@pytest.fixture(scope="session")
def images(engine: None, checkout: Path) -> Images:
    """The images; unchanged layers come from the build cache."""
    return Images(build(checkout, "api"), build(checkout, "worker"))


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BCCD from `FRS_TEST_DATA`, else drawn scenes under its name; readable for all users."""
    folder = tmp_path_factory.mktemp("datasets")
    bccd = Path(os.environ.get("FRS_TEST_DATA", "absent")) / "bccd"
    if bccd.is_dir():
        shutil.copytree(bccd, folder / "bccd")
    else:
        draw_dataset(folder / "bccd", train=60, val=20)
    run(["chmod", "-R", "a+rX", str(folder)])
    return folder


@pytest.fixture(scope="session")
def stack_with(
    images: Images, datasets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Stack]]:
    with ExitStack() as stacks:

        def start(**env: Any) -> Stack:
            name = f"frs-test-{secrets.token_hex(3)}"
            variables = {"FRS_API_IMAGE": images.api, "FRS_WORKER_IMAGE": images.worker}
            return stacks.enter_context(Stack(name, tmp_path_factory.mktemp(name), datasets, **(variables | env)))

        yield start


@pytest.fixture(scope="session")
def stack(stack_with: Callable[..., Stack]) -> Stack:
    """A stack shared by the tests that do not change its state."""
    stack = stack_with()
    stack.add_bccd()
    return stack
