"""docs/datasets.md names everything that a data set can be refused or left out for."""

from pathlib import Path
from typing import get_args

import pytest

from frs import errors
from frs.dataset.issues import IssueCode
from frs.dataset.trainable import BoxExclusion, ImageExclusion
from frs.dataset.upload.foreign import FORMATS

PAGE = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text("utf-8")
CODES = [
    error.code for error in vars(errors).values() if isinstance(error, type) and issubclass(error, errors.BadDataset)
]


@pytest.mark.parametrize("code", [*get_args(IssueCode), *get_args(BoxExclusion), *get_args(ImageExclusion)])
def test_each_issue_and_each_reason_is_on_the_page(code):
    assert f"`{code}`" in PAGE


@pytest.mark.parametrize("code", sorted({*CODES} - {"dataset_not_found"}))
def test_each_refusal_of_an_upload_is_on_the_page(code):
    assert f"`{code}`" in PAGE


@pytest.mark.parametrize("name", sorted({known.name.split()[0] for known in FORMATS} - {"COCO"}))
def test_each_format_that_is_recognised_is_on_the_page(name):
    assert name in PAGE
