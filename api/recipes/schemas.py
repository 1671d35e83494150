"""Response schemas of recipes."""

from typing import Any

from api.http.schemas import ResponseModel
from frs.recipes import Published, PublishedWeights


class Recipe(ResponseModel):
    """A ready-made job spec, with the results that the paper publishes for it, if any."""

    name: str
    title: str
    published: Published | None
    """Results published in the paper; null for recipes that are not from the paper."""
    teacher_weights: PublishedWeights | None
    """File with the teacher's weights that `spec.teacher` expects in the folder of models."""
    spec: dict[str, Any]
    """Job spec for `POST /jobs`; omitted fields take their defaults."""
