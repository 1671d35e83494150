import json
from pathlib import Path
from typing import get_args

import mmdet
import mmengine
import mmpretrain
import pytest
import timm
import torchvision
import yaml
from mmengine.hub import get_config

from frs import published_weights
from frs.backbones import TimmName
from frs.detector_spec import Architecture, ConfigDetector, DescribedDetector, InitFromFile
from frs.detectors import builder, imagenet
from frs.detectors.builder import imagenet_source
from frs.errors import WeightsNotFound
from frs.published_weights import PublishedFile
from frs.recipes import RECIPES, Recipe

TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2")
RTMDET = [get_config(f"mmdet::rtmdet/rtmdet_{size}_8xb32-300e_coco.py").model for size in ("tiny", "s")]
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
                imagenet.find(imagenet_source(detector), models)
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
    pretrain = Path(mmpretrain.__file__).parent / ".mim" / "configs" / "efficientnet" / "metafile.yml"
    published_urls |= {model.get("Weights") for model in yaml.safe_load(pretrain.read_text())["Models"]}
    published_urls |= {weights.url for name in TORCHVISION for weights in torchvision.models.get_model_weights(name)}
    published_urls |= {config.backbone.init_cfg.checkpoint for config in RTMDET}
    published_urls |= set(json.loads((Path(mmengine.__file__).parent / "hub" / "openmmlab.json").read_text()).values())
    for row in published_weights.published_files():
        if row.urls and not row.hub:
            assert published_urls & set(row.urls), row.file
            assert {url.rpartition("/")[2] for url in row.urls} == {row.file}


def test_timms_files_are_those_that_timm_would_download() -> None:
    for row in published_weights.published_files():
        if row.hub:
            published = timm.get_pretrained_cfg(row.source.removeprefix("timm://"))
            assert published.hf_hub_id == row.hub
            assert row.file == f"{row.hub.partition('/')[2]}.safetensors"
            assert (row.licence or "apache-2.0") == published.license


def test_every_backbone_of_timm_has_published_weights() -> None:
    assert all(published_weights.imagenet_files(f"timm://{name}") for name in get_args(TimmName))


@pytest.mark.parametrize("architecture", builder.BASE_CONFIG)
def test_a_described_detector_starts_from_the_weights_that_its_base_config_names(architecture: Architecture) -> None:
    detector = DescribedDetector(architecture=architecture)
    config = builder.load_base_config(detector).model.backbone
    named = (config.get("init_cfg") or {}).get("checkpoint", "") if architecture != "yolox" else ""
    assert published_weights.imagenet_source(detector) == named
    if config.type == "ResNet":
        assert config.depth == 50


def test_a_file_with_an_unknown_hash_is_named_without_digits() -> None:
    unknown = {row.file for row in published_weights.published_files() if not row.sha256_prefix}
    assert all("cspnext" in name or name.endswith(".safetensors") for name in unknown)


FILE = PublishedFile(file="a.pth", package="frs-models", hub="timm/a")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths at which `FILE` is searched, best first; none exists."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "frs_models").mkdir()
    (tmp_path / "frs_models" / "__init__.py").touch()
    return [
        tmp_path / "models" / "a.pth",
        tmp_path / "frs_models" / "models" / "a.pth",
        tmp_path / "cache" / "torch" / "hub" / "checkpoints" / "a.pth",
        tmp_path / "cache" / "huggingface" / "hub" / "models--timm--a" / "snapshots" / "1f" / "model.safetensors",
    ]


def test_a_file_is_searched_in_the_models_folder_then_in_packages_and_caches(
    places: list[Path], tmp_path: Path
) -> None:
    assert FILE.find(tmp_path / "models") is None
    for path in reversed(places):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert FILE.find(tmp_path / "models") == path
