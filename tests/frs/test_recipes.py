import subprocess
import sys

import pytest

from frs.detector_spec import ConfigDetector, InitFromFile
from frs.recipes import RECIPES

PAPER = {
    "retinanet_r101_r50_2x": (38.9, 37.4, 39.7),
    "gfl_r101_r50_1x": (44.9, 40.2, 43.6),
    "gfl_r101_r50_2x": (44.9, 42.9, 44.7),
    "faster_rcnn_r101_r50_1x": (39.4, 37.4, 39.5),
    "fcos_r101_r50_2x": (40.8, 38.5, 40.9),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_recipes_of_the_paper_match_its_published_results(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.published is not None and recipe.teacher_weights is not None
    assert tuple(recipe.published.model_dump().values()) == PAPER[name]
    spec = recipe.spec
    assert spec.baseline and spec.distillation.adapter == "3x3" and spec.distillation.warmup_steps == 500
    assert spec.distillation.feature_weight == spec.distillation.logit_weight == "paper"
    assert isinstance(spec.teacher, ConfigDetector) and isinstance(spec.student, ConfigDetector)
    assert "r101" in spec.teacher.config and "r50" in spec.student.config
    assert spec.teacher.init == InitFromFile(weights=recipe.teacher_weights.file)
    assert recipe.teacher_weights.file.endswith(f"-{recipe.teacher_weights.sha256_prefix}.pth")


def test_importing_the_recipes_does_not_import_torch() -> None:
    program = "import sys, frs.recipes, frs.evaluation.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
