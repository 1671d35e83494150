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
    """What a job of that recipe opens under the models folder."""
    found = set()
    for detector in (recipe.spec.teacher, recipe.spec.student):
        assert isinstance(detector, ConfigDetector | DescribedDetector)
        if isinstance(detector.init, InitFromFile):
            found.add(detector.init.weights)
        elif detector.init == "imagenet":
            with pytest.raises(WeightsNotFound) as refused:
                imagenet_file(detector, models)
            found.add(next(word for word in refused.value.message.split() if word.endswith(".pth")))
    return found


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_is_brought_exactly_what_it_opens(name: str, tmp_path: Path) -> None:
    wanted = {row.file for row in published_weights.files_for(name)}
    assert wanted == files_of(RECIPES[name], tmp_path)
    assert len(wanted) == 2


def test_every_recipe_named_is_one_of_the_papers() -> None:
    assert {recipe for row in published_weights.published_files() for recipe in row.recipes} == set(PAPER)
    assert published_weights.files_for("small_student") == []


def test_every_address_is_one_its_publisher_names() -> None:
    configs = Path(mmdet.__file__).parent / ".mim" / "configs"
    said = {
        model.get("Weights")
        for name in ("retinanet", "gfl", "faster_rcnn", "fcos")
        for model in yaml.safe_load((configs / name / "metafile.yml").read_text())["Models"]
    }
    said |= {weights.url for weights in ResNet50_Weights}
    said |= set(json.loads((Path(mmengine.__file__).parent / "hub" / "openmmlab.json").read_text()).values())
    for row in published_weights.published_files():
        assert said & set(row.urls), row.file
        assert {url.rpartition("/")[2] for url in row.urls} == {row.file}


def test_every_name_ends_in_eight_hex_digits() -> None:
    for row in published_weights.published_files():
        assert len(row.sha256_prefix) == 8
        int(row.sha256_prefix, 16)
