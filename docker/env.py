"""`make env`: writes .env with random passwords, and the first API key. Needs nothing but Python."""

import argparse
import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = "change-me"
GPU = Path("/dev/nvidiactl")
"""There where NVIDIA's driver is loaded."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT, help="the folder of .env and .secrets")
    parser.add_argument("--datasets", type=Path, default=ROOT / "datasets")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    arguments = parser.parse_args()
    env, key = arguments.output / ".env", arguments.output / ".secrets" / "api-key"
    if env.exists():
        sys.exit(
            f"{env} is there already, and the databases know its passwords. To begin anew, remove it and the volumes."
        )
    for folder in (arguments.datasets, arguments.models):
        folder.mkdir(parents=True, exist_ok=True)
    key.parent.mkdir(parents=True, exist_ok=True)
    key.parent.chmod(0o700)
    if not key.exists():
        write(
            key, f"frs_{secrets.token_urlsafe(32)}\n", 0o444
        )  # the folder keeps others out; containers see the file alone
    values = {
        "COMPOSE_FILE": "docker-compose.yml" if GPU.exists() else "docker-compose.cpu.yml",
        "FRS_DATASETS_DIR": str(arguments.datasets.absolute()),
        "FRS_MODELS_DIR": str(arguments.models.absolute()),
    }
    write(env, filled((ROOT / ".env.example").read_text(), values), 0o600)
    found = "an NVIDIA driver" if GPU.exists() else "no NVIDIA driver"
    print(f"{env}: passwords, folders, and {values['COMPOSE_FILE']}, for there is {found}")
    print(f"{key}: the first API key, an admin's; export FRS_API_KEY=$(cat {key})")


def filled(example: str, values: dict[str, str]) -> str:
    """The example with these values, and with passwords of its own."""
    passwords = {name: secrets.token_urlsafe(24) for name in ("POSTGRES", "REDIS", "GRAFANA")}
    lines = []
    for line in example.splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and EXAMPLE in value:
            which = {"FRS_DATABASE_URL": "POSTGRES", "FRS_BROKER_URL": "REDIS"}.get(name, name.partition("_")[0])
            line = f"{name}={value.replace(EXAMPLE, passwords[which])}"
        elif name in values:
            line = f"{name}={values[name]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def write(path: Path, text: str, mode: int) -> None:
    """Whole, and never readable by others than it will be."""
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
