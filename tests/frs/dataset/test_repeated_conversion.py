"""Each machine converts an archive itself; all must get the same images, ids and classes."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from layout_writers import write_voc, write_yolo

from frs.dataset.shapes.drawing import draw_dataset


def copy(source: Path, target: Path) -> Path:
    return shutil.copytree(source, target)


def without_validation(write_layout, names):
    """Return a writer that removes the validation split's files `names` afterwards."""

    def write(source: Path, target: Path) -> Path:
        write_layout(source, target)
        for name in names:
            path = target / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return target

    return write


LAYOUTS = {
    "coco": (copy, None),
    "coco, divided": (without_validation(copy, ["val", "annotations/instances_val.json"]), "0.3"),
    "voc": (write_voc, None),
    "voc, divided": (without_validation(write_voc, ["ImageSets/Main/val.txt"]), "0.3"),
    "yolo": (write_yolo, None),
    "yolo, divided": (without_validation(write_yolo, ["images/val", "labels/val"]), "0.3"),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn data set whose splits share no file name, as some layouts require."""
    folder = tmp_path_factory.mktemp("drawn") / "set"
    draw_dataset(folder, train=9, val=3, size=48)
    annotations = folder / "annotations" / "instances_val.json"
    for path in (folder / "val").iterdir():
        path.rename(path.with_name(f"val-{path.name}"))
        annotations.write_text(annotations.read_text().replace(f'"{path.name}"', f'"val-{path.name}"'))
    return folder


def convert(archive: Path, folder: Path, fraction: str | None, hash_seed: str) -> dict[str, str]:
    """Convert the archive with the service's command and return the SHA-256 of every file."""
    command = [sys.executable, "-m", "frs.dataset.upload.convert", str(archive), str(folder), str(1 << 30)]
    process = subprocess.run(
        [*command, *([fraction] if fraction else [])],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
    )
    assert process.returncode == 0, process.stdout
    root = folder / "set"
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_conversions_of_an_archive_give_the_same_bytes(drawn, tmp_path, layout):
    """The second archive holds its members in reverse order, so a file system may list them in another order."""
    write, fraction = LAYOUTS[layout]
    source = write(drawn, tmp_path / "source")
    members = sorted(path for path in source.rglob("*") if path.is_file())
    conversions = []
    for number, order in enumerate((members, members[::-1])):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            for path in order:
                archive.write(path, path.relative_to(source))
        conversions.append(convert(tmp_path / f"{number}.zip", tmp_path / str(number), fraction, hash_seed=str(number)))
    assert conversions[0] == conversions[1]
    assert {"annotations/instances_train.json", "annotations/instances_val.json"} <= conversions[0].keys()
    assert len(conversions[0]) == (9 if fraction else 9 + 3) + 2
