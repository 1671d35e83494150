from pathlib import Path

from frs import recipes
from frs.detector_spec import DescribedDetector, InitFromFile
from frs.detectors import builder, weights
from frs.recipes import RECIPES

FOLDER = Path(recipes.__file__).parent / "weights"


def test_the_package_contains_the_teacher_of_the_demo_and_it_matches_its_recipe(tmp_path: Path) -> None:
    teacher = RECIPES["shapes_gfl"].spec.teacher
    assert isinstance(teacher, DescribedDetector) and isinstance(teacher.init, InitFromFile)
    file = FOLDER / teacher.init.weights
    assert weights.digest(file).startswith(file.stem.rpartition("-")[2])
    assert file.stat().st_size <= 4_000_000
    content = weights.read(file)
    weights.load(builder.build(teacher, 4, tmp_path), content, file.name)
    assert weights.classes_of(content) == ("circle", "square", "triangle", "star")


def test_the_teacher_recipe_trains_the_detector_that_the_demo_uses() -> None:
    trained, used = RECIPES["shapes_teacher"].spec.student, RECIPES["shapes_gfl"].spec.teacher
    assert trained.model_copy(update={"init": "random"}) == used.model_copy(update={"init": "random"})
