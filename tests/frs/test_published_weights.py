import json
from pathlib import Path

import mmdet
import mmengine
import pytest
import yaml
from torchvision.models import ResNet50_Weights

from frs import published_weights
from frs.detectors.builder import imagenet_file
from frs.errors import WeightsNotFound
from frs.recipes import RECIPES, Recipe
from frs.spec import ConfigDetector, DescribedDetector, InitFromFile

PAPER = sorted(name for name, recipe in RECIPES.items() if recipe.published)


def files_of(recipe: Recipe, models: Path) -> set[str]:
    """Return the files that a job of the recipe opens in the models folder."""
    names = set()
    for detector in (recipe.spec.teacher, recipe.spec.student):
        assert isinstance(detector, ConfigDetector | DescribedDetector)
        if isinstance(detector.init, InitFromFile):
            names.add(detector.init.weights)
        elif detector.init == "imagenet":
            with pytest.raises(WeightsNotFound) as raised:
                imagenet_file(detector, models)
            words = [word.removesuffix(".") for word in raised.value.message.split()]
            names.add(next(word for word in words if word.endswith(".pth")))
    return names


@pytest.mark.parametrize("name", PAPER)
def test_the_listed_files_of_a_recipe_are_the_files_it_opens(name: str, tmp_path: Path) -> None:
    listed = {row.file for row in published_weights.files_for(name)}
    assert listed == files_of(RECIPES[name], tmp_path)
    assert len(listed) == 2


def test_every_listed_recipe_is_one_of_the_paper() -> None:
    assert {recipe for row in published_weights.published_files() for recipe in row.recipes} == set(PAPER)
    assert published_weights.files_for("small_student") == []


def test_every_file_has_an_address_that_its_publisher_lists() -> None:
    configs = Path(mmdet.__file__).parent / ".mim" / "configs"
    published_urls = {
        model.get("Weights")
        for name in ("retinanet", "gfl", "faster_rcnn", "fcos")
        for model in yaml.safe_load((configs / name / "metafile.yml").read_text())["Models"]
    }
    published_urls |= {weights.url for weights in ResNet50_Weights}
    published_urls |= set(json.loads((Path(mmengine.__file__).parent / "hub" / "openmmlab.json").read_text()).values())
    for row in published_weights.published_files():
        assert published_urls & set(row.urls), row.file
        assert {url.rpartition("/")[2] for url in row.urls} == {row.file}


def test_every_file_name_ends_in_eight_hex_digits() -> None:
    for row in published_weights.published_files():
        assert len(row.sha256_prefix) == 8
        int(row.sha256_prefix, 16)
