"""The experiments of `docs/protocol.md`: sets, arms, and the runs that answer each question."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

from frs.distillation_spec import DistanceName, MaskName, Method

Spec = dict[str, Any]
TUNING_SEEDS, TEST_SEEDS = (100, 101), tuple(range(12))
RATIOS = (3, 10, 30, 100)
DISTANCES: tuple[DistanceName, ...] = ("squared", "standardised", "cosine")
OTHER_METHODS: tuple[Method, ...] = ("pkd", "cwd", "mgd", "fgd", "crosskd")
CROSSKD_RATIOS = (1, 3, 10)
"""Logit ratios of `crosskd`, which has no feature term; the others have feature ratios."""
PRECISION = "bf16"
"""Precision of the runs: what `auto` is on a GPU, and about 1.6 times as fast as fp32 on a CPU with AVX-512 BF16."""
CHOSEN_RATIO = 100
"""The best of the four ratios of question `weight` on the tuning seeds, with a constant weight."""
CHOSEN_SCHEDULE = "constant"
"""The best schedule of question `weight` on the tuning seeds."""
PRESENT_RATIO = 30
"""The default of `auto` until these runs. The rule for a new default compares the chosen ratio with it."""


@dataclass(frozen=True)
class Study:
    """A data set with a student and a teacher, and the length of a run."""

    name: str
    dataset: str
    """Folder of the data set below OUTPUT/data."""
    image_size: tuple[int, int]
    student: Spec
    teacher: Spec
    """Description of the teacher; its weights are those of `teacher_weights`."""
    teacher_weights: str
    learning_rate: float
    epochs: int
    augmentation: str = "light"
    unlabelled: str | None = None
    baseline: str | None = None
    """Study whose runs of `none` are this one's, too; None: its own."""

    def spec(self, arm: str, seed: int, epochs: int) -> Spec:
        """Return the job spec of one run. An even number of epochs is evaluated halfway, too."""
        spec: Spec = {
            "dataset": self.dataset,
            "student": self.student,
            "schedule": self.schedule(epochs) | {"seed": seed, "augmentation": self.augmentation},
        }
        if arm == "none":
            return spec | {"kind": "train"}
        weights = "random" if arm == RANDOM_TEACHER else {"weights": self.teacher_weights}
        spec |= {"kind": "distill", "teacher": self.teacher | {"init": weights}} | ARMS[arm]
        return spec | ({"unlabelled": self.unlabelled} if self.unlabelled else {})

    def schedule(self, epochs: int) -> Spec:
        """Return the fields of a schedule that all runs of the study share."""
        return {
            "epochs": epochs,
            "batch_size": 8,
            "image_size": list(self.image_size),
            "optimizer": {"name": "adamw", "learning_rate": self.learning_rate},
            "lr_schedule": {"name": "cosine"},
            "max_grad_norm": 10,
            "precision": PRECISION,
            "evaluate_every": epochs if epochs % 2 else epochs // 2,
        }


def _gfl(backbone: Spec, channels: int, convs: int, init: str = "random") -> Spec:
    return {
        "architecture": "gfl",
        "backbone": backbone,
        "neck_channels": channels,
        "stacked_convs": convs,
        "init": init,
    }


_SHAPES: Spec = {
    "dataset": "shapes",
    "image_size": (160, 160),
    "student": _gfl({"depth": 18, "width": 16}, 32, 1),
    "teacher": _gfl({"depth": 18, "width": 16}, 48, 2),
    "teacher_weights": "shapes_teacher-d5d99538.pth",
    "learning_rate": 0.002,
    "epochs": 24,
}
_CELLS: Spec = {
    "dataset": "cells",
    "image_size": (320, 240),
    "student": _gfl({"type": "tf_efficientnet_lite0"}, 32, 1, "imagenet"),
    "teacher": _gfl({"type": "tf_efficientnet_lite2"}, 96, 2, "imagenet"),
    "teacher_weights": "cells_teacher.pth",
    "learning_rate": 0.0005,
    "epochs": 10,
}
_RTMDET: Spec = {
    "architecture": "rtmdet",
    "backbone": {"type": "CSPNeXt", "deepen_factor": 0.167, "widen_factor": 0.1875},
    "neck_channels": 48,
    "init": "random",
}
STUDIES = {
    study.name: study
    for study in (
        Study(name="shapes", **_SHAPES),
        Study(name="cells", **_CELLS),
        Study(name="cells-strong", **_CELLS, augmentation="strong"),
        # 100 images have 13 batches an epoch, 205 images 26: equal steps
        Study(name="cells-100", **_CELLS | {"dataset": "cells-100", "epochs": 20}),
        Study(
            name="cells-100-unlabelled",
            **_CELLS | {"dataset": "cells-100", "epochs": 20, "unlabelled": "cells-rest", "baseline": "cells-100"},
        ),
        # students whose neck and head have the shapes of the teacher's
        Study(name="shapes-same-head", **_SHAPES | {"student": _gfl({"depth": 18, "width": 8}, 48, 2)}),
        Study(
            name="cells-same-head",
            **_CELLS | {"student": _gfl({"type": "tf_efficientnet_lite0"}, 96, 2, "imagenet")},
        ),
        Study(name="cells-rtmdet", **_CELLS | {"student": _RTMDET, "learning_rate": 0.001, "epochs": 30}),
    )
}
TEACHER_EPOCHS = 30
RANDOM_TEACHER = "random teacher"


def ratio_arm(ratio: float, schedule: str = "constant") -> str:
    """Return the name of FRS with a feature ratio and a weight schedule."""
    return f"frs {ratio:g}" + ("" if schedule == "constant" else f" {schedule}")


def mask_arm(mask: str, distance: str, ratio: float) -> str:
    """Return the name of both terms under a mask, with a distance of the features and a feature ratio."""
    if (mask, distance) == ("richness", "squared"):
        return ratio_arm(ratio)
    return f"{mask} {distance} {ratio:g}"


def method_ratios(method: Method) -> tuple[float, ...]:
    """Return the three gradient ratios that a method from another paper is tuned over."""
    return CROSSKD_RATIOS if method == "crosskd" else RATIOS[1:]


def method_arm(method: Method, ratio: float) -> str:
    """Return the name of a method from another paper with the gradient ratio of its term."""
    return f"{method} {ratio:g}"


def _method_arms(methods: Iterable[Method]) -> list[str]:
    return [method_arm(method, ratio) for method in methods for ratio in method_ratios(method)]


def _distil(**distillation: Any) -> Spec:
    return {"method": "frs", "distillation": distillation}


CHOSEN_ARM = ratio_arm(CHOSEN_RATIO, CHOSEN_SCHEDULE)
NONE_FROM_TEACHER, CHOSEN_FROM_TEACHER = "none from-teacher", f"{CHOSEN_ARM} from-teacher"
"""Arms whose neck and head start from the teacher's weights: without distillation, and with the chosen setting."""
ARMS: dict[str, Spec] = {
    RANDOM_TEACHER: _distil(accept_weak_teacher=True, feature_ratio=PRESENT_RATIO),
    NONE_FROM_TEACHER: {"method": "none", "distillation": {"init_from_teacher": True}},
    CHOSEN_FROM_TEACHER: _distil(feature_ratio=CHOSEN_RATIO, weight_schedule=CHOSEN_SCHEDULE, init_from_teacher=True),
    f"frs {CHOSEN_RATIO:g} recalibrated": _distil(feature_ratio=CHOSEN_RATIO, recalibrate=True),
}
"""Fields of a spec by arm. Arm `none` has no teacher."""
for _ratio, _schedule in product(RATIOS, ("constant", "cosine", "adaptive")):
    ARMS[ratio_arm(_ratio, _schedule)] = _distil(feature_ratio=_ratio, weight_schedule=_schedule)
for _mask, _distance, _ratio in product(get_args(MaskName), DISTANCES, RATIOS[1:]):
    _settings = {} if (_mask, _distance) == ("richness", "squared") else {"mask": _mask, "distance": _distance}
    ARMS[mask_arm(_mask, _distance, _ratio)] = _distil(feature_ratio=_ratio, weight_schedule="constant", **_settings)
for _method in OTHER_METHODS:
    _field = "logit_ratio" if _method == "crosskd" else "feature_ratio"
    for _ratio in method_ratios(_method):
        ARMS[method_arm(_method, _ratio)] = {"method": _method, "distillation": {_field: _ratio}}


@dataclass(frozen=True)
class Run:
    """One run of a study: an arm with a seed and a length."""

    study: str
    arm: str
    seed: int
    epochs: int

    @property
    def folder(self) -> str:
        return f"{self.study}/{self.arm.replace(' ', '-')}-{self.epochs}-{self.seed}"

    def spec(self) -> Spec:
        """Return the job spec."""
        return STUDIES[self.study].spec(self.arm, self.seed, self.epochs)


def runs(studies: Iterable[str], arms: Iterable[str], seeds: Iterable[int], epochs: int | None = None) -> list[Run]:
    """Return the runs of all combinations, seed by seed, so that an early stop leaves complete comparisons."""
    return [
        Run(study, arm, seed, epochs or STUDIES[study].epochs) for seed, study, arm in product(seeds, studies, arms)
    ]


BOTH = ("shapes", "cells")
WEIGHT_ARMS = [*map(ratio_arm, RATIOS), *(ratio_arm(CHOSEN_RATIO, name) for name in ("cosine", "adaptive"))]
"""The six settings of question `weight`."""
QUESTIONS: dict[str, list[Run]] = {
    "weight": [
        *runs(BOTH, ["none", *WEIGHT_ARMS], TUNING_SEEDS),
        *runs(BOTH, [f"frs {CHOSEN_RATIO:g} recalibrated"], TUNING_SEEDS),
    ],
    "default": [
        *runs(BOTH, ["none", CHOSEN_ARM], TEST_SEEDS),
        *runs(["shapes"], [RANDOM_TEACHER], TEST_SEEDS[:5]),
    ],
    "present-default": runs(BOTH, ["none", ratio_arm(PRESENT_RATIO)], TEST_SEEDS),
    "length": [
        *runs(["cells"], ["none", CHOSEN_ARM], TEST_SEEDS[:5], epochs=30),
        *runs(["cells-strong"], ["none", CHOSEN_ARM], TEST_SEEDS[:5], epochs=30),
    ],
    "mask": runs(
        ["shapes"],
        ["none", *(mask_arm(*names) for names in product(get_args(MaskName), DISTANCES, RATIOS[1:]))],
        TUNING_SEEDS[:1],
    ),
    "unlabelled": [
        *runs(["cells-100"], ["none", CHOSEN_ARM], TEST_SEEDS[:5]),
        *runs(["cells-100-unlabelled"], [CHOSEN_ARM], TEST_SEEDS[:5]),
    ],
    "students": runs(["cells-rtmdet"], ["none", CHOSEN_ARM], TEST_SEEDS[:5]),
    "methods": runs(BOTH, ["none", *_method_arms(OTHER_METHODS[:3])], TUNING_SEEDS[:1]),
    "longest": runs(["cells", "cells-strong"], ["none", CHOSEN_ARM], TEST_SEEDS[:3], epochs=100),
    "methods-2": runs(BOTH, ["none", *_method_arms(OTHER_METHODS[3:])], TUNING_SEEDS[:1]),
    "teacher-head": runs(
        ["shapes-same-head", "cells-same-head"],
        ["none", NONE_FROM_TEACHER, CHOSEN_ARM, CHOSEN_FROM_TEACHER],
        TEST_SEEDS[:5],
    ),
}
"""The runs of each question, in the protocol's order. Test runs of `mask` and of both `methods` follow the tuning."""
