"""The distillation settings of a job spec, and the table of methods. Importing this module needs no torch."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StrictBool, model_validator

from frs.spec_model import Spec

Method = Literal["frs", "feature", "logit", "uniform", "boxes", "pkd", "cwd", "mgd", "fgd", "crosskd", "none"]
TermName = Literal["feature", "logit"]
MaskName = Literal["richness", "boxes", "union", "uniform"]
DistanceName = Literal["squared", "standardised", "cosine", "channel"]
AdapterName = Literal["1x1", "3x3", "masked"]
TermModule = Literal["focal_global", "cross_head"]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | Literal["auto", "paper"]
GradientRatio = Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)]


class MethodTerms(NamedTuple):
    """The terms of a method, and its default mask, distance and adapter."""

    names: tuple[TermName, ...]
    """The terms: pyramid features, class logits."""
    mask: MaskName = "richness"
    distance: DistanceName = "squared"
    adapter: AdapterName = "3x3"
    module: TermModule | None = None
    """The module that computes the only term, instead of a distance under a mask."""

    @property
    def needs_boxes(self) -> bool:
        """Whether the terms use the ground-truth boxes of every image."""
        return self.mask == "boxes" or self.module == "focal_global"


METHODS: dict[Method, MethodTerms] = {
    "frs": MethodTerms(("feature", "logit")),
    "feature": MethodTerms(("feature",)),
    "logit": MethodTerms(("logit",)),
    "uniform": MethodTerms(("feature", "logit"), mask="uniform"),
    "boxes": MethodTerms(("feature", "logit"), mask="boxes"),
    "pkd": MethodTerms(("feature",), mask="uniform", distance="standardised"),
    "cwd": MethodTerms(("feature",), mask="uniform", distance="channel", adapter="1x1"),
    "mgd": MethodTerms(("feature",), mask="uniform", adapter="masked"),
    "fgd": MethodTerms(("feature",), adapter="1x1", module="focal_global"),
    "crosskd": MethodTerms(("logit",), module="cross_head"),
    "none": MethodTerms(()),
}
"""The distillation methods: the paper's, its terms alone, its terms under other masks, those of other papers, none."""


FORMER_DEFAULTS: dict[str, float | str] = {"feature_ratio": 30.0, "adapter": "3x3"}
"""The first defaults of fields whose default has changed. Specs are stored with their defaults, so the specs of older
jobs hold these values; where a field has no effect, they count as absent.
"""


class Distillation(Spec):
    """The weights of the distillation terms and how the teacher is used."""

    feature_weight: Weight = "auto"
    """Weight of the feature term. `auto`: calibrated after the learning-rate warm-up; `paper`: the paper's."""
    logit_weight: Weight = "auto"
    """Weight of the logit term. `auto`: calibrated after the learning-rate warm-up; `paper`: the paper's."""
    feature_ratio: GradientRatio = 100.0
    """For `feature_weight: auto`: gradient norm of the weighted feature term at the student's pyramid, divided by the
    task loss's, at the time of calibration."""
    logit_ratio: GradientRatio = 1.0
    """For `logit_weight: auto`: the same for the logit term."""
    weight_schedule: Literal["constant", "cosine", "adaptive"] = "constant"
    """How the weights change after the ramp. `constant`: not at all; `cosine`: down to 0.05 of their value at the last
    step; `adaptive`: the `auto` weights change at the end of each epoch that has a diagnosis, by a factor of at most 2,
    towards those at which the terms have `feature_ratio` and `logit_ratio`."""
    recalibrate: StrictBool = False
    """Whether to calibrate the `auto` weights a second time after a quarter of the steps."""
    warmup_steps: Annotated[int, Field(ge=0, le=100_000)] | Literal["auto"] = "auto"
    """Steps over which the terms ramp up from 0 to their weight. `auto`: min(500, 5 % of the steps)."""
    mask: MaskName | None = None
    """Weights of the locations. `richness`: the teacher's highest class score; `boxes`: 1 inside the ground-truth
    boxes; `union`: the larger of the two; `uniform`: 1. Absent: the method's."""
    distance: DistanceName | None = None
    """Distance of the features. `squared`: squared error; `standardised`: squared error of features whose channels have
    mean 0 and standard deviation 1; `cosine`: 1 - cosine over the channels; `channel`: KL divergence of each channel's
    softmax over the locations. Absent: the method's."""
    adapter: AdapterName | None = None
    """Layers that map the student's features to the teacher's channels. `1x1`, `3x3`: a convolution; `masked`: two
    convolutions that generate the teacher's features from the student's after setting a random 65 % of the locations to
    0. Absent: the method's."""
    init_from_teacher: StrictBool = False
    """Whether the layers of the student's neck and head start from the teacher's weights where name and shape agree;
    the baseline does not. At least one convolution must agree. A student that starts from another job's keeps its own
    neck and head. Without distillation: `method: none`."""
    accept_weak_teacher: StrictBool = False
    """Whether to train under a teacher whose mAP on the validation split is below 0.01."""
    teacher_cache: Literal["auto", "on", "off"] = "auto"
    """Whether to cache the teacher's outputs on disk between epochs. `auto`: if all training images are scaled to one
    shape, training has at least 4 epochs, and the outputs fit into a quarter of the free disk space."""

    def terms(self, method: Method) -> MethodTerms:
        """Return the terms of `method`, with the mask, distance and adapter that are set here."""
        names = ("mask", "distance", "adapter")
        return METHODS[method]._replace(**{name: value for name in names if (value := getattr(self, name))})

    def sets(self, name: str) -> bool:
        """Whether the field has another value than its default, the present or the first one."""
        value = getattr(self, name)
        return value != type(self).model_fields[name].default and value != FORMER_DEFAULTS.get(name)

    @property
    def weights(self) -> dict[TermName, Weight]:
        """The weights by term."""
        return {"feature": self.feature_weight, "logit": self.logit_weight}

    @property
    def ratios(self) -> dict[TermName, float]:
        """The target ratios of gradient norms by term."""
        return {"feature": self.feature_ratio, "logit": self.logit_ratio}

    @model_validator(mode="after")
    def _require_a_weight(self) -> "Distillation":
        if not any(self.weights.values()):
            raise ValueError("feature_weight and logit_weight are both 0: use method `none` or kind `train`")
        return self
