"""Endpoints of recipes."""

from fastapi import APIRouter

from api.http.auth import Reader
from api.http.schemas import Page
from api.recipes import service
from api.recipes.schemas import Recipe

router = APIRouter(prefix="/recipes", tags=["recipes"])


@router.get("")
def list_recipes(_: Reader) -> Page[Recipe]:
    """List the recipes: the teacher-student pairs of the paper and smaller ones, each with a spec for `POST /jobs`."""
    return service.list_recipes()


@router.get("/{name}")
def get_recipe(_: Reader, name: str) -> Recipe:
    """Return a recipe by its name."""
    return service.get_recipe(name)
