"""Check the types of the page against the OpenAPI document, if npm is there: write web/types/api.d.ts, then run tsc."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from api.app import create_app
from store.initialise import initialise
from store.settings import Settings

WEB = Path(__file__).parents[1] / "web"
TYPES = WEB / "types" / "api.d.ts"
PACKAGES = ("openapi-typescript@7.13.0", "typescript@5.9.3")


def main() -> int:
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not installed: the types of the page are not checked.")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder) / "data")
        initialise(settings)
        document = Path(folder) / "openapi.json"
        document.write_text(json.dumps(create_app(settings).openapi()))
        TYPES.parent.mkdir(exist_ok=True)
        execute = [npm, "exec", "--yes", *(f"--package={package}" for package in PACKAGES), "--"]
        generated = subprocess.run(
            [*execute, "openapi-typescript", document, "-o", TYPES], capture_output=True, text=True
        )
    if generated.returncode:
        print(generated.stderr)
        return 1
    return subprocess.run([*execute, "tsc", "--noEmit", "--project", WEB]).returncode


if __name__ == "__main__":
    sys.exit(main())
