from fastapi import APIRouter

from api.http.auth import Reader
from api.http.schemas import Page
from api.recipes import service
from api.recipes.schemas import Recipe

router = APIRouter(prefix="/recipes", tags=["recipes"])


@router.get("")
def list_recipes(_: Reader) -> Page[Recipe]:
    """The paper's pairs and small ones, each with a spec that is ready for `POST /jobs`."""
    return service.listing()


@router.get("/{name}")
def get_recipe(_: Reader, name: str) -> Recipe:
    """One of them, by its name."""
    return service.find(name)
