"""`make env`: write .env with random passwords, and the first API key. Standard library only."""

import argparse
import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = "change-me"
GPU = Path("/dev/nvidiactl")
"""Exists if the NVIDIA driver is loaded."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT, help="folder in which .env and .secrets are written")
    parser.add_argument("--datasets", type=Path, default=ROOT / "datasets")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    arguments = parser.parse_args()
    env, key = arguments.output / ".env", arguments.output / ".secrets" / "api-key"
    if env.exists():
        sys.exit(
            f"{env} already exists, and the databases use its passwords. To start over, remove it and the volumes."
        )
    for folder in (arguments.datasets, arguments.models):
        folder.mkdir(parents=True, exist_ok=True)
    key.parent.mkdir(parents=True, exist_ok=True)
    key.parent.chmod(0o700)
    if not key.exists():
        # world-readable because only the file is mounted into containers; on the host its folder (0700) protects it
        write(key, f"frs_{secrets.token_urlsafe(32)}\n", 0o444)
    values = {
        "COMPOSE_FILE": "docker-compose.yml:docker/compose.gpu.yml" if GPU.exists() else "docker-compose.yml",
        "FRS_DATASETS_DIR": str(arguments.datasets.absolute()),
        "FRS_MODELS_DIR": str(arguments.models.absolute()),
    }
    write(env, fill_example((ROOT / ".env.example").read_text(), values), 0o600)
    driver = "was found" if GPU.exists() else "was not found"
    print(f"{env}: passwords, folders, and COMPOSE_FILE={values['COMPOSE_FILE']} (an NVIDIA driver {driver})")
    print(f"{key}: the first API key, with admin scope. To use it: export FRS_API_KEY=$(cat {key})")


def fill_example(example: str, values: dict[str, str]) -> str:
    """Return the text of .env: the example with `values`, and with random passwords for its placeholders."""
    passwords = {name: secrets.token_urlsafe(24) for name in ("POSTGRES", "REDIS", "GRAFANA")}
    lines = []
    for line in example.splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and EXAMPLE in value:
            owner = {"FRS_DATABASE_URL": "POSTGRES", "FRS_BROKER_URL": "REDIS"}.get(name, name.partition("_")[0])
            line = f"{name}={value.replace(EXAMPLE, passwords[owner])}"
        elif name in values:
            line = f"{name}={values[name]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def write(path: Path, text: str, mode: int) -> None:
    """Write the file atomically; it is never readable by more users than `mode` allows."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(mode)
    part.replace(path)


if __name__ == "__main__":
    main()
