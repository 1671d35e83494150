"""Download the JavaScript libraries of the page, or check that the vendored files are those of the manifest.

    python .ci/vendor.py --check    # without network: each file has the SHA-256 of the manifest, and there is no other
    python .ci/vendor.py            # download the packages of the manifest again and write files and hashes

Browsers resolve no package names, so imports by name are replaced by the vendored file's name. A file with an `entry`
is a bundle: esbuild takes from the packages what that module of `.ci/` imports. The same versions make the same bytes.
"""

import argparse
import base64
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = HERE.parent / "web" / "vendor"
MANIFEST = FOLDER / "manifest.json"
REGISTRY = "https://registry.npmjs.org"
OPTIONS = ("--bundle", "--format=esm", "--minify", "--target=es2022", '--define:process.env.NODE_ENV="production"')
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}
"""Names of the machines in npm."""
Manifest = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description="Download or check the JavaScript libraries of the page.")
    parser.add_argument("--check", action="store_true", help="compare the files with the manifest, without network")
    manifest: Manifest = json.loads(MANIFEST.read_text())
    if not parser.parse_args().check:
        download(manifest)
    differences = find_differences(manifest)
    print("\n".join(differences) or f"{len(expected(manifest))} vendored files are those of the manifest.")
    return 1 if differences else 0


def expected(manifest: Manifest) -> dict[str, str]:
    """Return the SHA-256 of each vendored file by name."""
    return {file["name"]: file["sha256"] for package in manifest["packages"] for file in package["files"]}


def find_differences(manifest: Manifest) -> list[str]:
    hashes = expected(manifest)
    files = [path for path in FOLDER.iterdir() if path != MANIFEST]
    present = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    changed = [name for name in sorted(hashes.keys() | present.keys()) if hashes.get(name) != present.get(name)]
    return [f"web/vendor/{name} is not the file of the manifest. Run `python .ci/vendor.py`." for name in changed]


def download(manifest: Manifest) -> None:
    """Write the files of all packages and their hashes into the manifest."""
    packages = manifest["packages"]
    modules = {file["module"]: file["name"] for package in packages for file in package["files"] if "module" in file}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundler = unpack(select_bundler(manifest), folder) / "bin" / "esbuild"
        for package in packages:
            unpack(package, folder)
        for package in packages:
            for file in package["files"]:
                if "entry" in file:
                    content = bundle(HERE / file["entry"], bundler, folder)
                else:
                    content = (folder / "node_modules" / package["name"] / file["source"]).read_bytes()
                    if "module" in file:
                        content = with_file_names(content.decode(), modules).encode()
                (FOLDER / file["name"]).write_bytes(content)
                file["sha256"] = hashlib.sha256(content).hexdigest()
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n")


def select_bundler(manifest: Manifest) -> dict[str, Any]:
    """Return esbuild's package for this machine. Raise SystemExit if the manifest has none."""
    machine = platform.machine().lower()
    name = f"@esbuild/{platform.system().lower()}-{MACHINES.get(machine, machine)}"
    for package in manifest["bundlers"]:
        if package["name"] == name:
            return dict(package)
    raise SystemExit(f"{MANIFEST} has no {name}. Add it to `bundlers`, in the version of the others.")


def unpack(package: dict[str, Any], folder: Path) -> Path:
    """Unpack a package into node_modules and return its folder; an absent `integrity` becomes that of the archive."""
    archive = fetch(package["name"], package["version"], package.get("integrity"))
    package["integrity"] = integrity_of(archive)
    target = folder / "node_modules" / str(package["name"])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / "unpacked" / "package").rename(target)
    return target


def bundle(entry: Path, bundler: Path, folder: Path) -> bytes:
    """Return a module with all that an entry module uses of the packages in `folder`."""
    shutil.copy(entry, folder / entry.name)
    return subprocess.run([bundler, entry.name, *OPTIONS], cwd=folder, check=True, capture_output=True).stdout


def fetch(name: str, version: str, integrity: str | None) -> bytes:
    """Return the archive of a package. Raise SystemExit if it is not the one of the manifest."""
    address = f"{REGISTRY}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    with urllib.request.urlopen(address, timeout=60) as response:
        archive: bytes = response.read()
    if integrity is not None and integrity_of(archive) != integrity:
        raise SystemExit(f"{address} is not the archive of the manifest: {integrity_of(archive)}")
    return archive


def integrity_of(archive: bytes) -> str:
    """Return the hash in npm's form."""
    return "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()


def with_file_names(source: str, modules: dict[str, str]) -> str:
    """Replace imports by package name with imports of the vendored files, and remove references to source maps."""
    source = re.sub(r'(from\s*|import\s*)"([@\w/-]+)"', lambda match: f'{match[1]}"./{modules[match[2]]}"', source)
    return re.sub(r"\n//# sourceMappingURL=\S*", "", source)


if __name__ == "__main__":
    sys.exit(main())
