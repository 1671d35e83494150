from pathlib import Path

import pytest

from frs.dataset import coco as coco_files
from frs.dataset.coco import CocoFile


@pytest.fixture(scope="session")
def coco(data: Path) -> CocoFile:
    """The training annotations of the drawn data set: 14 images."""
    return coco_files.read(data / "tiny" / "annotations" / "instances_train.json")
