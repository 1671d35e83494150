"""Ready-made specs, one YAML file each: the paper's detector pairs, and small ones that train on a laptop."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from frs.spec import JobSpec


class PublishedWeights(BaseModel):
    """The published weights file of a recipe's teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    file: str
    """File name in the models folder."""
    sha256_prefix: str
    """First 8 hex digits of the file's SHA-256."""


class Published(BaseModel):
    """The paper's results, COCO val2017 box mAP in percent. They were not measured with this implementation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    teacher: float | None
    """mAP of the teacher."""
    student_alone: float | None
    """mAP of the student without distillation."""
    student_distilled: float
    """mAP of the distilled student."""


class Recipe(BaseModel):
    """A named spec with a title."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    name: str
    """Name of the recipe, its file name without extension."""
    title: str
    """One-line description."""
    published: Published | None = None
    """The paper's results, for a recipe of the paper."""
    teacher_weights: PublishedWeights | None = None
    """Weights file of the teacher, if it is published."""
    spec: JobSpec
    """The job spec."""

    def spec_as_dict(self) -> dict[str, Any]:
        """Return the spec with only the fields that the recipe sets."""
        return self.spec.model_dump(mode="json", exclude_unset=True)


@cache
def _load() -> dict[str, Recipe]:
    texts = sorted((file.name, file.read_text()) for file in files(__name__).iterdir() if file.name.endswith(".yaml"))
    recipes = [Recipe(name=name.removesuffix(".yaml"), **yaml.safe_load(text)) for name, text in texts]
    return {recipe.name: recipe for recipe in recipes}


RECIPES = _load()
