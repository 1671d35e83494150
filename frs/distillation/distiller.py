"""Student, adapter and teacher in one training step, the same for one- and two-stage detectors and every method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from frs.detectors.heads import Detector, class_logits, class_map, dense_head, strides
from frs.distillation.adapter import Adapter
from frs.distillation.batch import DistillationBatch, TeacherLevel
from frs.distillation.capture_output import capture_output
from frs.distillation.diagnosis import diagnose
from frs.distillation.losses import weighted_mean
from frs.distillation.methods import METHODS, Term
from frs.distillation.teacher import Levels, Teacher
from frs.distillation.teacher_cache import TeacherCache
from frs.errors import HeadMismatch, StrideMismatch
from frs.spec import Distillation, Method, TermName


@dataclass
class LossWeights:
    """How much each term counts once the ramp is up; None until it is calibrated."""

    feature: float | None
    logit: float | None
    ramp_from: int = 0
    """Step at which the ramp starts."""

    def of(self, term: TermName) -> float | None:
        return self.feature if term == "feature" else self.logit


class Distiller(BaseModel):
    """Trains `student` with its own loss + ramp * sum of weight * term, over the terms of a method.

    The student's `loss()` runs once, unmodified. `state_dict` holds student and adapter; the teacher is no module here.
    A term of weight 0 is not computed. Raises StrideMismatch, HeadMismatch or UnsupportedDetector when teacher and
    student do not fit.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Teacher,
        distillation: Distillation,
        weights: LossWeights,
        ramp_steps: int,
        method: Method = "frs",
        diagnose_every: int = 50,
    ):
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.student: Detector = student
        self.teacher = teacher
        self.cache: TeacherCache | None = None
        self.weights = weights
        self.ramp_steps = ramp_steps
        self.step = 0
        """Optimisation steps done; set by whoever runs the loop."""
        self.diagnose_every = diagnose_every
        """Steps between tellings of gradient shares, coverage and agreement; they cost about half a backward pass."""
        self.terms: Mapping[TermName, Term] = {
            name: term for name, term in METHODS[method].items() if weights.of(name) != 0
        }
        self.strides = common_strides(student, teacher)
        if "logit" in self.terms:
            check_class_maps(student, teacher)
        self.adapter = self._adapter(distillation) if "feature" in self.terms else None

    def _adapter(self, distillation: Distillation) -> Adapter:
        own, theirs = self.student.neck.out_channels, self.teacher.detector.neck.out_channels
        return Adapter(self.strides, own, theirs, distillation.adapter)

    def init_weights(self) -> None:
        """Nothing: student and adapter come initialised, and the Runner would do it again."""

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        return self.student(inputs, data_samples, mode=mode)

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        with optim_wrapper.optim_context(self):
            outputs = self.forward_both(data)
        task, logs = self.student.parse_losses(outputs.losses)
        loss = task + self.ramp * self.weigh(outputs.terms) if outputs.terms else task
        told = {f"distill_{name}": term.detach() for name, term in outputs.terms.items()}
        if outputs.terms and self.step % self.diagnose_every == 0:
            told |= diagnose(outputs, task, {name: self.ramp * (self.weights.of(name) or 0.0) for name in self.terms})
        optim_wrapper.update_params(loss)
        return logs | told | {"loss": loss.detach()}

    def forward_both(self, data: dict[str, Any]) -> DistillationBatch:
        """One forward pass of both over a raw batch; under the caller's autocast, the terms in fp32.

        `data["unlabelled"]`, where there is one, is a batch of images for the terms alone.
        """
        extra = data.get("unlabelled", {"inputs": [], "data_samples": []})
        raw, images = {key: [*data[key], *extra[key]] for key in extra}, len(data["inputs"])
        seen_features, seen_logits = self.observe(raw)
        batch = self.data_preprocessor(raw, True)
        inputs, samples = batch["inputs"], batch["data_samples"]
        with capture_output(self.student.neck) as neck, capture_output(dense_head(self.student)) as head:
            losses = self.student(inputs[:images], samples[:images], mode="loss")
        passes = [(tuple(neck.output), tuple(head.output[0]))]
        if extra["inputs"]:
            pyramid = self.student.extract_feat(inputs[images:])
            passes.append((pyramid, class_logits(self.student, pyramid)))
        features, logits = (self._levels(parts) for parts in zip(*passes, strict=True))
        boxes = [sample.gt_instances.bboxes for sample in samples]
        teacher_levels = {s: TeacherLevel(seen_features[s], seen_logits[s], boxes, s) for s in self.strides}
        with torch.autocast(self._device_type, enabled=False):
            terms = self.compare(features, logits, teacher_levels)
        return DistillationBatch(
            losses, tuple(level for pyramid, _ in passes for level in pyramid), logits, teacher_levels, terms
        )

    def observe(self, raw: dict[str, Any]) -> tuple[Levels, Levels]:
        if self.cache is not None:
            return self.cache.observe(raw["inputs"], raw["data_samples"])
        return self.teacher.observe(raw["inputs"])

    def compare(
        self, features: Levels, logits: Levels, teacher_levels: Mapping[int, TeacherLevel]
    ) -> dict[TermName, Tensor]:
        """The terms, summed over the levels both have."""
        masks = {
            mask: {s: mask(teacher_levels[s]) for s in self.strides}
            for mask in {term.mask for term in self.terms.values()}
        }
        adapted = self.adapter({s: features[s].float() for s in self.strides}) if self.adapter else {}
        terms: dict[TermName, Tensor] = {}
        for name, (mask, distance) in self.terms.items():
            own = adapted if name == "feature" else logits
            theirs = {
                s: teacher_levels[s].features if name == "feature" else teacher_levels[s].logits for s in self.strides
            }
            per_level = [weighted_mean(distance(own[s], theirs[s]), masks[mask][s]) for s in self.strides]
            terms[name] = torch.stack(per_level).sum()
        return terms

    def weigh(self, terms: Mapping[TermName, Tensor]) -> Tensor:
        """Sum of weight * term; 0 for a weight not known yet."""
        return torch.stack([(self.weights.of(name) or 0.0) * terms[name] for name in self.terms]).sum()

    @property
    def calibrated(self) -> bool:
        return all(self.weights.of(name) is not None for name in self.terms)

    @property
    def ramp(self) -> float:
        """From 0 to 1 over the warm-up, linearly; 0 while a weight is still to be found."""
        if not self.calibrated:
            return 0.0
        return min(1.0, max(0.0, (self.step - self.weights.ramp_from) / max(1, self.ramp_steps)))

    def _levels(self, parts: Any) -> Levels:
        """By stride, from the levels of one pass, or of two whose images are put together."""
        levels = (level[0] if len(level) == 1 else torch.cat(level) for level in zip(*parts, strict=True))
        return dict(zip(strides(self.student), levels, strict=True))

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
            f"The logits of teacher and student mean different things: {_describe(theirs)} against {_describe(own)} per location."
        )


def _describe(channels: Any) -> str:
    what = "objectness" if channels.objectness else f"{channels.outputs} classes"
    return f"{channels.anchors} anchor(s) x {what}"
