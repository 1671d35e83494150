"""Weights that others publish and the paper's recipes name: `published.yaml`. Nothing here downloads them."""

from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict


class PublishedFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    """Its name under the models folder, where recipes look for it."""
    urls: tuple[str, ...]
    """The publisher's first; the others hold the same file."""
    recipes: tuple[str, ...]
    """Those that need it."""

    @property
    def sha256_prefix(self) -> str:
        return self.file.removesuffix(".pth").rpartition("-")[2]


@cache
def published_files() -> tuple[PublishedFile, ...]:
    return tuple(PublishedFile(**row) for row in yaml.safe_load(files("frs").joinpath("published.yaml").read_text()))


def published_names() -> list[str]:
    """What can be asked for: recipes, then files."""
    recipes = sorted({recipe for row in published_files() for recipe in row.recipes})
    return [*recipes, *(row.file for row in published_files())]


def files_for(name: str) -> list[PublishedFile]:
    """The file of that name, or all that the recipe of that name needs; empty where there is no such."""
    return [row for row in published_files() if name == row.file or name in row.recipes]
