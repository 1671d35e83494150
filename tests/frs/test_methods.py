"""Every distillation method trains, in a step and in a run, and reports its terms."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from test_distiller import batch, distiller, optimise
from test_engine import facts, series, values
from tiny import ARCHITECTURES, SAMPLED_ARCHITECTURES, Train, described, job

from frs.distillation.diagnosis import agreement
from frs.distillation.distiller import LossWeights
from frs.distillation_spec import METHODS, Method
from frs.spec import JobSpec

DISTILLING: list[Method] = [method for method in METHODS if method != "none"]


@pytest.mark.parametrize("method", DISTILLING)
def test_a_method_trains_with_its_own_terms_only(method: Method) -> None:
    model = distiller(weights=LossWeights(0.01, 0.1, ramp_from=-4), method=method)
    logs = optimise(model)[0]
    assert {name for name in logs if name.startswith("distill_")} == {
        f"distill_{term}" for term in METHODS[method].names
    }
    assert all(torch.isfinite(value) for value in logs.values())
    assert (model.layers is not None) == (method != "logit")


@pytest.mark.parametrize("method", [method for method in DISTILLING if METHODS[method].module])
def test_bf16_training_computes_the_terms_of_modules_in_fp32(method: Method) -> None:
    logs = optimise(distiller(method=method), steps=2, precision="bf16")[1]
    terms = [value for name, value in logs.items() if name.startswith("distill_")]
    assert terms and all(term.dtype == torch.float32 and torch.isfinite(term) for term in terms)


@pytest.mark.parametrize("method", DISTILLING)
def test_a_run_of_any_method_calibrates_its_weights(train: Train, method: Method) -> None:
    emitted = train(job(method=method, distillation={"feature_weight": "auto", "logit_weight": "auto"}))
    weights = facts(emitted)["weights"]
    assert {name for name in ("feature", "logit") if weights[name]} == set(METHODS[method].names)
    assert facts(emitted)["method"] == method


def test_method_none_equals_plain_training_and_also_evaluates_the_teacher(train: Train, tmp_path: Path) -> None:
    emitted = train(
        job(method="none", distillation={"feature_weight": "auto", "logit_weight": "auto"}), tmp_path / "none"
    )
    plain = train(job(kind="train", teacher=None), tmp_path / "plain")
    assert values(emitted) == values(plain)
    assert {event.role for event in emitted if event.type == "evaluation"} == {"teacher", "student"}


@pytest.mark.parametrize(
    ("method", "weights", "reason"),
    [
        ("feature", {"feature_weight": 0}, "its weight is 0"),
        ("feature", {"logit_weight": 0.5}, "no use for logit_weight"),
        ("pkd", {"feature_weight": "paper"}, "holds for distance `squared`"),
        ("frs", {"feature_weight": "paper", "distance": "cosine"}, "holds for distance `squared`"),
        ("none", {"teacher_cache": "on"}, "no use for `teacher_cache`"),
        ("none", {"mask": "boxes"}, "no use for `mask`"),
        ("logit", {"distance": "cosine"}, "`distance` has no effect"),
        ("frs", {"feature_weight": 1, "feature_ratio": 3}, "`feature_ratio` has no effect"),
        ("feature", {"logit_ratio": 3}, "`logit_ratio` has no effect"),
        ("feature", {"feature_weight": 1, "weight_schedule": "adaptive"}, "need a weight that is `auto`"),
        ("mgd", {"feature_weight": "paper"}, "a convolution as adapter"),
        ("fgd", {"feature_weight": "paper"}, "no feature weight for method `fgd`"),
        ("crosskd", {"logit_weight": "paper"}, "no logit weight for method `crosskd`"),
        ("crosskd", {"adapter": "1x1"}, "`adapter` has no effect"),
        ("crosskd", {"mask": "boxes"}, "a term of its own: remove `mask`"),
        ("fgd", {"mask": "boxes"}, "a term of its own: remove `mask`"),
        ("fgd", {"distance": "cosine"}, "a term of its own: remove `distance`"),
        ("frs", {"feature_weight": "paper", "adapter": "masked"}, "a convolution as adapter"),
        ("logit", {"adapter": "1x1"}, "`adapter` has no effect"),
        ("frs", {"feature_weight": 0, "distance": "cosine"}, "`distance` has no effect"),
        ("none", {"weight_schedule": "cosine"}, "no use for `weight_schedule`"),
        ("feature", {"feature_weight": 1, "recalibrate": True}, "need a weight that is `auto`"),
    ],
)
def test_weights_that_a_method_cannot_use_are_refused(method: str, weights: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        JobSpec.model_validate(job(method=method) | {"distillation": weights})


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "train", "method": "pkd"},
        {"kind": "train", "distillation": {"feature_weight": 3}},
        {"kind": "evaluate", "resources": {"max_minutes": 5}},
    ],
)
def test_a_field_without_effect_is_refused(changes: dict[str, Any]) -> None:
    spec = {"dataset": "tiny", "student": described()}
    JobSpec.model_validate(spec | {"kind": changes["kind"]})
    with pytest.raises(ValidationError, match="need a `teacher`|does not train"):
        JobSpec.model_validate(spec | changes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shares_coverage_and_agreement_are_logged_at_the_diagnosis_interval(architecture: str) -> None:
    model = distiller(architecture, LossWeights(0.01, 0.1, ramp_from=-4), diagnose_every=2)
    first, second, third = optimise(model, steps=3)
    strides = {f"coverage_{stride}" for stride in model.strides}
    assert {"share_feature", "share_logit", "agreement"} | strides <= first.keys() == third.keys()
    assert not any(name.startswith(("share", "coverage", "agree")) for name in second)
    assert 0 <= first["agreement"] <= 1 and all(0 < first[name] < 1 for name in strides)


def test_a_share_is_the_gradient_norm_of_the_weighted_term_over_that_of_the_task_loss() -> None:
    model = distiller(weights=LossWeights(0.01, 0.1, ramp_from=-2), diagnose_every=1)
    logs = optimise(model)[0]
    outputs = distiller(weights=LossWeights(0.01, 0.1, ramp_from=-2)).train().forward_both(batch())
    task, _ = model.student.parse_losses(outputs.losses)
    norms = []
    for loss in (task, 0.5 * 0.01 * outputs.terms["feature"]):  # the middle of the ramp of 4 steps
        gradients = torch.autograd.grad(loss, outputs.pyramid, retain_graph=True)
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    assert logs["share_feature"].item() == pytest.approx((norms[1] / norms[0]).item(), rel=1e-4)


def test_the_agreement_of_equal_logits_is_1() -> None:
    outputs = distiller().forward_both(batch())
    outputs.logits = {stride: level.logits for stride, level in outputs.teacher_levels.items()}
    assert agreement(outputs).item() == pytest.approx(1)


def test_unlabelled_images_contribute_to_the_terms_only() -> None:
    model, unlabelled = distiller(), batch()
    unlabelled["inputs"] = [255 - image for image in unlabelled["inputs"]]
    labelled, both = model.forward_both(batch()), model.forward_both(batch() | {"unlabelled": unlabelled})
    for name, losses in labelled.losses.items():
        torch.testing.assert_close(both.losses[name], losses, msg=name)
    assert all(both.terms[name] != labelled.terms[name] for name in both.terms)
    assert len(both.pyramid) == 2 * len(labelled.pyramid)


def test_unlabelled_images_equal_to_the_labelled_ones_do_not_change_the_terms() -> None:
    model = distiller()
    labelled, both = model.forward_both(batch()), model.forward_both(batch() | {"unlabelled": batch()})
    for name in labelled.terms:
        torch.testing.assert_close(both.terms[name], labelled.terms[name])


@pytest.mark.parametrize("architecture", SAMPLED_ARCHITECTURES)
def test_a_run_with_unlabelled_images_computes_the_terms_at_every_step(train: Train, architecture: str) -> None:
    spec = job(
        unlabelled="tiny",
        teacher=described(architecture, neck_channels=32),
        student=described(architecture),
        distillation={"feature_weight": "auto", "logit_weight": "auto"},
        schedule={"max_steps": 3},
    )
    emitted = train(spec)
    assert series(emitted)["train/distill_feature"] == [1, 2, 3]
    assert facts(emitted)["unlabelled_images"] == 14


@pytest.mark.parametrize("boxes", ["none", "empty box"])
def test_boxes_of_unlabelled_images_may_be_missing_and_are_ignored(
    train: Train, data: Path, tmp_path: Path, boxes: str
) -> None:
    emitted = train(job(unlabelled="tiny", schedule={"max_steps": 2}), tmp_path / "with")
    shutil.copytree(data / "tiny", data / "bare", dirs_exist_ok=True)
    annotations = data / "bare" / "annotations" / "instances_train.json"
    content = json.loads((data / "tiny" / "annotations" / "instances_train.json").read_text())
    if boxes == "none":
        content["annotations"] = []
    else:
        content["annotations"][0]["bbox"][2] = 0
    annotations.write_text(json.dumps(content))
    shutil.rmtree(data / "bare" / "val")  # not used
    bare = train(job(unlabelled="bare", schedule={"max_steps": 2}), tmp_path / "bare")
    for step in (1, 2):
        assert values(bare)[step, "train/distill_feature"] == values(emitted)[step, "train/distill_feature"]


@pytest.mark.parametrize(
    "changes", [{"kind": "train", "teacher": None}, {"method": "none"}, {"method": "boxes"}, {"method": "fgd"}]
)
def test_unlabelled_images_without_distillation_are_refused(changes: dict[str, Any]) -> None:
    spec = {**job(), "unlabelled": "tiny", "distillation": {}} | changes
    with pytest.raises(ValidationError, match="unlabelled"):
        JobSpec.model_validate(spec)
