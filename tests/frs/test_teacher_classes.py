"""A teacher's classes are mapped by name to the data set's; a feature-only method accepts any classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine import facts, series
from test_plan import planned as planned
from tiny import ARCHITECTURES, Train, described, job, of
from torch.nn.functional import softmax

from frs import events
from frs.cli import report_text
from frs.detector_spec import DescribedDetector
from frs.detectors import builder, loading, weights
from frs.distillation.losses import richness
from frs.distillation.teacher import Teacher
from frs.errors import ClassMismatch, TeacherWeightsMismatch
from frs.evaluation import report
from frs.facts import RunFacts, TeacherClasses
from frs.preflight.estimate import Estimate
from frs.resolved import ResolvedDetector

SHAPES = ("circle", "square", "triangle", "star")
SUPERSET = ("moon", "star", "circle", "sun", "triangle", "square")
CHOSEN = [2, 5, 4, 1]
"""Positions of `SHAPES` in `SUPERSET`."""
PERMUTATION = ("star", "triangle", "circle", "square")
FEATURE_ONLY = {"logit_weight": 0}


def description(architecture: str = "gfl", name: str = "own.pth") -> dict[str, Any]:
    return described(architecture, neck_channels=32, init={"weights": name})


def save(folder: Path, classes: tuple[str, ...] | None, architecture: str = "gfl", total: int = 0) -> ResolvedDetector:
    """Return a detector of `classes` whose class layers have weights of ordinary size."""
    described_detector = DescribedDetector.model_validate(description(architecture))
    torch.manual_seed(0)
    detector = builder.build(described_detector, total or len(classes or ()), folder)
    state = detector.state_dict()
    state |= {key: torch.randn_like(state[key]) for key in state if "cls" in key and "convs" not in key}
    meta = {"dataset_meta": {"classes": classes}} if classes else {}
    weights.write({"meta": meta, "state_dict": state}, folder / "own.pth")
    return ResolvedDetector(description=described_detector, weights=folder / "own.pth")


def load_full(resolved: ResolvedDetector, classes: tuple[str, ...]) -> Any:
    return loading.load_detector(resolved, classes, Path()).eval()


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "faster_rcnn"])
@pytest.mark.parametrize("classes", [SUPERSET, PERMUTATION])
def test_the_logits_are_those_of_the_classes_of_the_same_names(
    tmp_path: Path, architecture: str, classes: tuple[str, ...]
) -> None:
    resolved = save(tmp_path, classes, architecture)
    loaded = loading.load_teacher(resolved, SHAPES, tmp_path, distils_logits=True)
    assert loaded.classes == TeacherClasses(total=len(classes), used=4)
    image = [torch.rand(3, 64, 64)]
    (features, mapped), (own_features, own) = (
        Teacher(detector).observe(image) for detector in (loaded.detector, load_full(resolved, classes))
    )
    chosen = [classes.index(name) for name in SHAPES]
    for stride, logits in own.items():
        by_anchor = logits.unflatten(1, (-1, len(classes)))[:, :, chosen].flatten(1, 2)
        torch.testing.assert_close(mapped[stride], by_anchor)
        torch.testing.assert_close(richness(mapped[stride]), by_anchor.amax(1, keepdim=True).sigmoid())
        assert torch.equal(features[stride], own_features[stride])


def test_a_two_stage_teacher_keeps_the_probabilities_and_boxes_of_the_mapped_classes(tmp_path: Path) -> None:
    resolved = save(tmp_path, SUPERSET, "faster_rcnn")
    mapped = loading.load_teacher(resolved, SHAPES, tmp_path, distils_logits=True).detector.roi_head.bbox_head
    own = load_full(resolved, SUPERSET).roi_head.bbox_head
    regions = torch.randn(5, 32, 7, 7)
    (scores, boxes), (own_scores, own_boxes) = mapped(regions), own(regions)
    probabilities, own_probabilities = softmax(scores, 1), softmax(own_scores, 1)
    torch.testing.assert_close(probabilities[:, :-1], own_probabilities[:, CHOSEN])
    torch.testing.assert_close(probabilities[:, -1], 1 - own_probabilities[:, CHOSEN].sum(1))
    torch.testing.assert_close(boxes.view(5, 4, 4), own_boxes.view(5, 6, 4)[:, CHOSEN])


@pytest.mark.parametrize("classes", [("cat", "dog"), ("circle", "square", "triangle", "moon"), SHAPES[:3], ("star",)])
def test_a_teacher_of_other_classes_is_refused_if_its_logits_are_distilled(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    resolved = save(tmp_path, classes)
    with pytest.raises(ClassMismatch, match="lacks .*'") as raised:
        loading.load_teacher(resolved, SHAPES, tmp_path, distils_logits=True)
    assert all(repr(name) in raised.value.message for name in set(SHAPES) - set(classes))
    assert "`feature`" in raised.value.hint and "own.pth" in raised.value.message
    loaded = loading.load_teacher(resolved, SHAPES, tmp_path, distils_logits=False)
    assert loaded.classes == TeacherClasses(total=len(classes), used=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_class_names_a_feature_only_teacher_is_built_with_the_classes_of_its_shapes(
    tmp_path: Path, architecture: str
) -> None:
    resolved = save(tmp_path, None, architecture, total=7)
    loaded = loading.load_teacher(resolved, SHAPES, tmp_path, distils_logits=False)
    assert loaded.classes == TeacherClasses(total=7, used=0)
    with pytest.raises(TeacherWeightsMismatch):
        loading.load_teacher(resolved, SHAPES, tmp_path, distils_logits=True)


def test_class_names_given_at_the_registration_count_if_the_file_has_none(tmp_path: Path) -> None:
    resolved = save(tmp_path, None, total=6).model_copy(update={"classes": SUPERSET})
    loaded = loading.load_teacher(resolved, SHAPES, tmp_path, distils_logits=True)
    assert loaded.classes == TeacherClasses(total=6, used=4)


def test_a_file_whose_names_do_not_fit_its_shapes_is_refused(tmp_path: Path) -> None:
    """Such a file comes from a fine-tuning whose data set's `metainfo` was not set."""
    resolved = save(tmp_path, SUPERSET, total=3)
    for distils_logits in (True, False):
        with pytest.raises(TeacherWeightsMismatch):
            loading.load_teacher(resolved, SHAPES, tmp_path, distils_logits)


@pytest.mark.parametrize("changes", [{"method": "pkd", "distillation": FEATURE_ONLY}, {"distillation": FEATURE_ONLY}])
def test_a_feature_only_job_trains_under_a_teacher_of_other_classes_without_evaluating_it(
    train: Train, models: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    save(models, ("cat", "dog"))
    emitted = train(job(teacher=description(), schedule={"max_steps": 1}, **changes))
    assert "train/distill_feature" in series(emitted)
    assert {evaluation.role for evaluation in of(events.Evaluation, emitted)} == {"student"}
    assert not (tmp_path / "run" / "detections-teacher.npz").exists()
    run_facts = RunFacts.model_validate(facts(emitted))
    assert run_facts.teacher_classes == TeacherClasses(total=2, used=0)
    assert any("mAP on the validation split is therefore unknown" in text for text in run_facts.warnings or ())


def checks(estimate: Estimate) -> dict[str, str]:
    return {check.code: check.message for check in estimate.checks}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_teacher_of_more_classes_is_evaluated_on_those_of_the_data_set(
    planned: Any, models: Path, architecture: str
) -> None:
    save(models, SUPERSET, architecture)
    estimate = planned(teacher=description(architecture), student=described(architecture))
    assert estimate.ok
    assert "mapped by name: 4 of its 6" in checks(estimate)["teacher_weights"]
    assert "reaches mAP" in checks(estimate)["teacher_mAP"]


def test_a_plan_accepts_a_teacher_of_other_classes_without_a_logit_term_alone(planned: Any, models: Path) -> None:
    save(models, ("cat", "dog"))
    refused, accepted = planned(teacher=description()), planned(teacher=description(), distillation=FEATURE_ONLY)
    assert not refused.ok and "'circle', 'square'" in checks(refused)["class_mismatch"]
    assert accepted.ok and accepted.teacher is not None and accepted.estimated_seconds > 0
    assert "keeps its own 2 classes" in checks(accepted)["teacher_mAP"]


def test_the_report_says_how_many_classes_are_mapped() -> None:
    scores = report.Scores(metrics=dict.fromkeys(report.NAMES, 0.5), per_class={})
    run_facts = RunFacts(teacher_classes=TeacherClasses(total=80, used=3))
    result = report.build([scores], scores, [], pairs=0, expects_teacher=True, facts=run_facts)
    assert "mapped by name: 3 of its 80" in report_text.conclusion(result)
