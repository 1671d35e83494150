"""Student, adapter and teacher in one training step, the same for one- and two-stage detectors."""

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from frs.adapter import Adapter
from frs.errors import HeadMismatch, StrideMismatch
from frs.heads import Detector, class_map, dense_head, strides
from frs.losses import feature_term, logit_term, richness
from frs.spec import Distillation
from frs.taps import tap
from frs.teacher import Levels, Teacher


@dataclass
class Weights:
    """How much each term counts once the ramp is up; None until it is calibrated."""

    feature: float | None
    logit: float | None
    ramp_from: int = 0
    """Step at which the ramp starts."""

    @property
    def known(self) -> bool:
        return self.feature is not None and self.logit is not None


@dataclass
class Lesson:
    """One batch seen by both: the student's losses and pyramid, and the terms that pull it to the teacher's."""

    losses: dict[str, Any]
    pyramid: tuple[Tensor, ...]
    terms: dict[str, Tensor]


class Distiller(BaseModel):
    """Trains `student` with its own loss + ramp * (feature weight * feature term + logit weight * logit term).

    The student's `loss()` runs once, unmodified. `state_dict` holds student and adapter; the teacher is no module here.
    Raises StrideMismatch, HeadMismatch or UnsupportedDetector when teacher and student do not fit.
    """

    def __init__(
        self, student: Detector, teacher: Teacher, distillation: Distillation, weights: Weights, ramp_steps: int
    ):
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.student: Detector = student
        self.teacher = teacher
        self.weights = weights
        self.ramp_steps = ramp_steps
        self.step = 0
        """Optimisation steps done; set by whoever runs the loop."""
        self.strides = common_strides(student, teacher)
        if weights.logit != 0:
            check_class_maps(student, teacher)
        self.adapter = Adapter(
            self.strides, student.neck.out_channels, teacher.detector.neck.out_channels, distillation.adapter
        )

    def init_weights(self) -> None:
        """Nothing: student and adapter come initialised, and the Runner would do it again."""

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        return self.student(inputs, data_samples, mode=mode)

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        with optim_wrapper.optim_context(self):
            lesson = self.teach(data)
        task, logs = self.student.parse_losses(lesson.losses)
        loss = task + self.ramp * self.weigh(lesson.terms)
        optim_wrapper.update_params(loss)
        terms = {f"distill_{name}": term.detach() for name, term in lesson.terms.items()}
        return logs | terms | {"loss": loss.detach()}

    def teach(self, data: dict[str, Any]) -> Lesson:
        """One forward pass of both over a raw batch; under the caller's autocast, the terms in fp32."""
        seen_features, seen_logits = self.teacher.observe(data["inputs"])
        batch = self.data_preprocessor(data, True)
        with tap(self.student.neck) as neck, tap(dense_head(self.student)) as head:
            losses = self.student(**batch, mode="loss")
        features = self._levels(neck.output)
        logits = self._levels(head.output[0])
        with torch.autocast(self._device_type, enabled=False):
            terms = self.terms(features, logits, seen_features, seen_logits)
        return Lesson(losses, tuple(neck.output), terms)

    def terms(self, features: Levels, logits: Levels, seen_features: Levels, seen_logits: Levels) -> dict[str, Tensor]:
        """The terms summed over the levels both have. A term whose weight is 0 is not computed."""
        rich = {stride: richness(seen_logits[stride]) for stride in self.strides}
        terms = {}
        if self.weights.feature != 0:
            adapted = self.adapter({stride: features[stride].float() for stride in self.strides})
            per_level = [feature_term(adapted[s], seen_features[s], rich[s]) for s in self.strides]
            terms["feature"] = torch.stack(per_level).sum()
        if self.weights.logit != 0:
            per_level = [logit_term(logits[s], seen_logits[s], rich[s]) for s in self.strides]
            terms["logit"] = torch.stack(per_level).sum()
        return terms

    def weigh(self, terms: dict[str, Tensor]) -> Tensor:
        """feature weight * feature term + logit weight * logit term; 0 for a weight not known yet."""
        return torch.stack([(getattr(self.weights, name) or 0.0) * term for name, term in terms.items()]).sum()

    @property
    def ramp(self) -> float:
        """From 0 to 1 over the warm-up, linearly; 0 while a weight is still to be found."""
        if not self.weights.known:
            return 0.0
        return min(1.0, max(0.0, (self.step - self.weights.ramp_from) / max(1, self.ramp_steps)))

    def _levels(self, tensors: Any) -> Levels:
        return dict(zip(strides(self.student), tensors, strict=True))

    @property
    def _device_type(self) -> str:
        return next(self.student.parameters()).device.type


def common_strides(student: Detector, teacher: Teacher) -> tuple[int, ...]:
    """Levels are matched by stride, not by index."""
    own = strides(student)
    common = tuple(stride for stride in own if stride in teacher.strides)
    if not common:
        raise StrideMismatch(f"Teacher strides {teacher.strides} and student strides {own} have none in common.")
    return common


def check_class_maps(student: Detector, teacher: Teacher) -> None:
    own, theirs = class_map(student), class_map(teacher.detector)
    if own != theirs:
        raise HeadMismatch(
            f"The logits of teacher and student mean different things: {_say(theirs)} against {_say(own)} per location."
        )


def _say(channels: Any) -> str:
    what = "objectness" if channels.objectness else f"{channels.outputs} classes"
    return f"{channels.anchors} anchor(s) x {what}"
