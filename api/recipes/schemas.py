"""Recipes as the API shows them."""

from typing import Any

from api.http.schemas import ResponseModel
from frs.recipes import Published, PublishedWeights


class Recipe(ResponseModel):
    name: str
    title: str
    published: Published | None
    """The paper's numbers; null for recipes that are not the paper's."""
    teacher_weights: PublishedWeights | None
    """File that `spec.teacher` wants to find in the folder of models."""
    spec: dict[str, Any]
    """For `POST /jobs`; what it leaves out takes its default."""
