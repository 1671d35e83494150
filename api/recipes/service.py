from api.http.errors import NotFoundError
from api.http.schemas import Page
from api.recipes.schemas import Recipe
from frs import recipes


def listing() -> Page[Recipe]:
    return Page(data=[_shown(recipe) for recipe in recipes.RECIPES.values()])


def find(name: str) -> Recipe:
    if name not in recipes.RECIPES:
        raise NotFoundError("recipe_not_found", "No such recipe.", "See GET /recipes.")
    return _shown(recipes.RECIPES[name])


def _shown(recipe: recipes.Recipe) -> Recipe:
    return Recipe(**dict(recipe) | {"spec": recipe.spec_as_dict()})
