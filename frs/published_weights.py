"""The published weights that the paper's recipes use, listed in `published.yaml`. This module downloads nothing."""

from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict


class PublishedFile(BaseModel):
    """A weights file that its authors publish."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    """File name in the models folder, as recipes refer to it."""
    urls: tuple[str, ...]
    """Download addresses: the publisher's, then mirrors of the same file."""
    recipes: tuple[str, ...]
    """Names of the recipes that use the file."""

    @property
    def sha256_prefix(self) -> str:
        """First 8 hex digits of the file's SHA-256, taken from its name."""
        return self.file.removesuffix(".pth").rpartition("-")[2]


@cache
def published_files() -> tuple[PublishedFile, ...]:
    """Return the entries of `published.yaml`."""
    return tuple(PublishedFile(**row) for row in yaml.safe_load(files("frs").joinpath("published.yaml").read_text()))


def published_names() -> list[str]:
    """Return the names that `files_for` accepts: recipes, then files."""
    recipes = sorted({recipe for row in published_files() for recipe in row.recipes})
    return [*recipes, *(row.file for row in published_files())]


def files_for(name: str) -> list[PublishedFile]:
    """Return the file called `name`, or the files that the recipe `name` uses; empty if there is neither."""
    return [row for row in published_files() if name == row.file or name in row.recipes]
