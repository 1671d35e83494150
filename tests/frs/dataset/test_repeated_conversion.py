"""Every machine converts an archive by itself: all must come to the same pictures, ids and classes."""

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


def as_it_is(source: Path, target: Path) -> Path:
    return shutil.copytree(source, target)


def without_validation(layout, names):
    def write(source: Path, target: Path) -> Path:
        layout(source, target)
        for name in names:
            path = target / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return target

    return write


LAYOUTS = {
    "coco": (as_it_is, None),
    "coco, shared out": (without_validation(as_it_is, ["val", "annotations/instances_val.json"]), "0.3"),
    "voc": (write_voc, None),
    "voc, shared out": (without_validation(write_voc, ["ImageSets/Main/val.txt"]), "0.3"),
    "yolo": (write_yolo, None),
    "yolo, shared out": (without_validation(write_yolo, ["images/val", "labels/val"]), "0.3"),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The halves' pictures are named differently, as some layouts want them to be."""
    folder = tmp_path_factory.mktemp("drawn") / "set"
    draw_dataset(folder, train=9, val=3, size=48)
    annotations = folder / "annotations" / "instances_val.json"
    for path in (folder / "val").iterdir():
        path.rename(path.with_name(f"val-{path.name}"))
        annotations.write_text(annotations.read_text().replace(f'"{path.name}"', f'"val-{path.name}"'))
    return folder


def converted(archive: Path, folder: Path, share: str | None, hash_seed: str) -> dict[str, str]:
    """SHA-256 of every file, by the process that the service starts."""
    command = [sys.executable, "-m", "frs.dataset.upload.convert", str(archive), str(folder), str(1 << 30)]
    ended = subprocess.run(
        [*command, *([share] if share else [])], env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True
    )
    assert ended.returncode == 0, ended.stdout
    root = folder / "set"
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_conversions_of_an_archive_give_the_same_bytes(drawn, tmp_path, layout):
    """In file systems that list names in another order, too: the second archive holds its members the other way round."""
    write, share = LAYOUTS[layout]
    source = write(drawn, tmp_path / "source")
    members = sorted(path for path in source.rglob("*") if path.is_file())
    found = []
    for number, order in enumerate((members, members[::-1])):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            for path in order:
                archive.write(path, path.relative_to(source))
        found.append(converted(tmp_path / f"{number}.zip", tmp_path / str(number), share, hash_seed=str(number)))
    assert found[0] == found[1]
    assert {"annotations/instances_train.json", "annotations/instances_val.json"} <= found[0].keys()
    assert len(found[0]) == (9 if share else 9 + 3) + 2
