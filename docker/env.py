"""`make env`: write .env with random passwords, and the first API keys, unless they exist. Standard library only."""

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
    parser.add_argument("--datasets", type=Path)
    parser.add_argument("--models", type=Path)
    arguments = parser.parse_args()
    env, secrets_folder = arguments.output / ".env", arguments.output / ".secrets"
    if env.exists() and (arguments.datasets or arguments.models):
        sys.exit(f"{env} already exists: set FRS_DATASETS_DIR and FRS_MODELS_DIR there.")
    prometheus = secrets_folder / "prometheus"
    prometheus.mkdir(parents=True, exist_ok=True)
    secrets_folder.chmod(0o700)
    prometheus.chmod(0o755)
    write_key(
        secrets_folder / "api-key", "the first API key, with admin scope; export FRS_API_KEY=$(cat .secrets/api-key)"
    )
    write_key(prometheus / "metrics-key", "Prometheus's API key, with metrics scope")
    if env.exists():
        print(f"{env}: kept; the databases use its passwords. To start over, remove it and the volumes.")
        return
    datasets, models = (arguments.datasets or ROOT / "datasets"), (arguments.models or ROOT / "models")
    for folder in (datasets, models):
        folder.mkdir(parents=True, exist_ok=True)
    values = {
        "COMPOSE_FILE": "docker-compose.yml:docker/compose.gpu.yml" if GPU.exists() else "docker-compose.yml",
        "FRS_DATASETS_DIR": str(datasets.absolute()),
        "FRS_MODELS_DIR": str(models.absolute()),
    }
    write(env, fill_example((ROOT / ".env.example").read_text(), values), 0o600)
    driver = "was found" if GPU.exists() else "was not found"
    print(f"{env}: passwords, folders, and COMPOSE_FILE={values['COMPOSE_FILE']} (an NVIDIA driver {driver})")


def write_key(path: Path, label: str) -> None:
    """Write a new API key unless the file exists.

    The file is world-readable because containers read it as other users; on the host, .secrets (0700) protects it.
    """
    if path.exists():
        return
    write(path, f"frs_{secrets.token_urlsafe(32)}\n", 0o444)
    print(f"{path}: {label}")


def new_password() -> str:
    return secrets.token_urlsafe(24)


def fill_example(example: str, values: dict[str, str]) -> str:
    """Return the text of .env: the example with `values`, and with random passwords for its placeholders."""
    passwords = {name: new_password() for name in ("POSTGRES", "REDIS", "GRAFANA")}
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
