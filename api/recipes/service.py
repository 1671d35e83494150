"""List the recipes of the engine."""

from api.http.errors import NotFoundError
from api.http.schemas import Page
from api.recipes.schemas import Recipe
from frs import recipes


def list_recipes() -> Page[Recipe]:
    """Return all recipes on one page."""
    return Page(data=[_to_schema(recipe) for recipe in recipes.RECIPES.values()])


def get_recipe(name: str) -> Recipe:
    """Return a recipe. Raises NotFoundError."""
    if name not in recipes.RECIPES:
        raise NotFoundError(
            "recipe_not_found", "There is no recipe of this name.", "The list of recipes has their names."
        )
    return _to_schema(recipes.RECIPES[name])


def _to_schema(recipe: recipes.Recipe) -> Recipe:
    return Recipe(**dict(recipe) | {"spec": recipe.spec_as_dict()})
