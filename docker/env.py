"""`make env`: writes .env with random passwords, and the first API key. Needs nothing but Python."""

import argparse
import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = "change-me"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT, help="the folder of .env and .secrets")
    parser.add_argument("--datasets", type=Path, default=ROOT / "datasets")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    arguments = parser.parse_args()
    env, key = arguments.to / ".env", arguments.to / ".secrets" / "api-key"
    if env.exists():
        sys.exit(
            f"{env} is there already, and the databases know its passwords. To begin anew, remove it and the volumes."
        )
    for folder in (arguments.datasets, arguments.models):
        folder.mkdir(parents=True, exist_ok=True)
    key.parent.mkdir(mode=0o700, exist_ok=True)
    if not key.exists():
        write(
            key, f"frs_{secrets.token_urlsafe(32)}\n", 0o444
        )  # the folder keeps others out; containers see the file alone
    write(env, filled((ROOT / ".env.example").read_text(), arguments.datasets, arguments.models), 0o600)
    print(f"{env}: passwords and folders\n{key}: the first API key, an admin's; export FRS_API_KEY=$(cat {key})")


def filled(example: str, datasets: Path, models: Path) -> str:
    passwords = {name: secrets.token_urlsafe(24) for name in ("POSTGRES", "REDIS", "GRAFANA")}
    lines = []
    for line in example.splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and EXAMPLE in value:
            which = {"FRS_DATABASE_URL": "POSTGRES", "FRS_BROKER_URL": "REDIS"}.get(name, name.partition("_")[0])
            line = f"{name}={value.replace(EXAMPLE, passwords[which])}"
        elif name in ("FRS_DATASETS_DIR", "FRS_MODELS_DIR"):
            line = f"{name}={(datasets if name == 'FRS_DATASETS_DIR' else models).absolute()}"
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
