"""Ready specs: the paper's pairs and small ones that fit a laptop, one YAML file each."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from frs.spec import JobSpec


class PublishedWeights(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    sha256_prefix: str


class Published(BaseModel):
    """The paper's numbers: COCO val2017 box mAP in percent. Theirs, not measured here."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    teacher: float | None
    student_alone: float | None
    student_distilled: float


class Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    title: str
    published: Published | None = None
    teacher_weights: PublishedWeights | None = None
    spec: JobSpec

    def spec_as_dict(self) -> dict[str, Any]:
        """The spec as written: what is left out stays out."""
        return self.spec.model_dump(mode="json", exclude_unset=True)


@cache
def _load() -> dict[str, Recipe]:
    texts = sorted((file.name, file.read_text()) for file in files(__name__).iterdir() if file.name.endswith(".yaml"))
    recipes = [Recipe(name=name.removesuffix(".yaml"), **yaml.safe_load(text)) for name, text in texts]
    return {recipe.name: recipe for recipe in recipes}


RECIPES = _load()
