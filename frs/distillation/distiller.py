"""The distiller: student, adapter and teacher in one training step, for all supported detectors and methods."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from frs.detectors.heads import (
    ClassMap,
    Detector,
    class_logits,
    class_map,
    dense_head,
    logits_of_outputs,
    pyramid_channels,
    strides,
)
from frs.distillation.adapter import Adapter
from frs.distillation.capture_output import capture_output
from frs.distillation.diagnosis import diagnose
from frs.distillation.losses import weighted_mean
from frs.distillation.methods import Term, build_terms
from frs.distillation.outputs import DistillationOutputs, TeacherLevel
from frs.distillation.teacher import Levels, Teacher
from frs.distillation.teacher_cache import TeacherCache
from frs.distillation.term_modules import TERM_MODULES
from frs.distillation.weight_schedule import WeightSchedule
from frs.distillation_spec import AdapterName, Distillation, Method, TermName
from frs.errors import HeadMismatch, StrideMismatch
from frs.facts import LossWeights


class StudentPass(NamedTuple):
    """The student's outputs at each pyramid level, finest level first."""

    features: tuple[Tensor, ...]
    """Pyramid features (N, C, H, W)."""
    logits: tuple[Tensor, ...]
    """Class logits (N, K, H, W), K = anchors x classes."""


class Distiller(BaseModel):
    """Train `student` with loss = task loss + factor x sum over terms of weight x term, for the terms of `method`.

    For method `frs` this is the loss of "Distilling Object Detectors with Feature Richness", NeurIPS 2021:
    task + factor x (alpha feature + beta logit). The student's `loss()` runs once, unmodified. `state_dict` holds
    student, adapter and term module; the teacher is not a submodule. A term of weight 0 is not computed.

    Raises StrideMismatch, HeadMismatch or UnsupportedDetector if teacher and student are incompatible.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Teacher,
        distillation: Distillation,
        weights: LossWeights,
        schedule: WeightSchedule,
        method: Method = "frs",
        diagnose_every: int = 50,
        rounds_head: bool = False,
    ):
        divisor = math.lcm(*(d.data_preprocessor.pad_size_divisor for d in (student, teacher.detector)))
        super().__init__(data_preprocessor=padding_to(student.data_preprocessor, divisor))
        teacher.preprocessor = padding_to(teacher.preprocessor, divisor)
        self.student: Detector = student
        self.teacher = teacher
        self.cache: TeacherCache | None = None
        self.weights = self.fixed_weights = weights
        self.ratios = distillation.ratios
        """Target ratios of the weights that are None in `fixed_weights`."""
        self.schedule = schedule
        self.diagnose_every = diagnose_every
        """Number of steps between two diagnoses; a diagnosis costs about half a backward pass."""
        self.rounds_head = rounds_head
        """Whether the student's head is rounded in its forward pass, which must then run as a whole."""
        terms = distillation.terms(method)
        self.terms: tuple[TermName, ...] = tuple(name for name in terms.names if weights.of(name) != 0)
        self.masked_terms: Mapping[TermName, Term] = {
            name: term for name, term in build_terms(terms).items() if name in self.terms
        }
        self.strides = common_strides(student, teacher)
        if "logit" in self.terms:
            check_class_maps(student, teacher)
        self.adapter = self._build_adapter(terms.adapter) if "feature" in self.masked_terms else None
        self.term_module: nn.Module | None = None
        """The module that computes the only term, if the method has one."""
        if terms.module is not None and self.terms:
            self.term_module = TERM_MODULES[terms.module](student, teacher, self.strides, terms.adapter)

    def init_weights(self) -> None:
        """Do nothing: mmengine's Runner would initialise student and adapter a second time."""

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Run the student's `forward` on preprocessed images `inputs` (N, 3, H, W)."""
        return self.student(inputs, data_samples, mode=mode)

    def train_step(self, data: dict[str, Any], optim_wrapper: Any, step: int) -> dict[str, Tensor]:
        """Run an optimisation step after `step` completed ones and return its losses and diagnostics as scalars.

        `data` is a raw batch as for `forward_both`.
        """
        with optim_wrapper.optim_context(self):
            outputs = self.forward_both(data)
        task, logs = self.student.parse_losses(outputs.losses)
        factor = self.factor(step)
        loss = task + factor * self.weigh(outputs.terms) if outputs.terms else task
        term_logs = {f"distill_{name}": term.detach() for name, term in outputs.terms.items()}
        if outputs.terms and step % self.diagnose_every == 0:
            effective_weights = {name: factor * (self.weights.of(name) or 0.0) for name in self.terms}
            term_logs |= diagnose(outputs, task, effective_weights)
        optim_wrapper.update_params(loss)
        return logs | term_logs | {"loss": loss.detach()}

    def forward_both(self, data: dict[str, Any]) -> DistillationOutputs:
        """Return the outputs of teacher and student over a raw batch.

        `data["unlabelled"]`, if present, is a batch of images that contribute to the terms only. The forward passes run
        under the caller's autocast; the terms are computed in fp32.
        """
        labelled, unlabelled = len(data["inputs"]), data.get("unlabelled")
        raw = {key: [*data[key], *(unlabelled[key] if unlabelled else ())] for key in ("inputs", "data_samples")}
        teacher_features, teacher_logits = self.observe(raw)
        batch = self.data_preprocessor(raw, True)
        inputs, samples = batch["inputs"], batch["data_samples"]
        losses, labelled_pass = self._forward_labelled(inputs[:labelled], samples[:labelled])
        passes = [labelled_pass, self._forward_unlabelled(inputs[labelled:])] if unlabelled else [labelled_pass]
        features, logits = (self._by_stride(levels) for levels in zip(*passes, strict=True))
        boxes = [sample.gt_instances.bboxes for sample in samples]
        teacher_levels = {
            stride: TeacherLevel(teacher_features[stride], teacher_logits[stride], boxes, stride)
            for stride in self.strides
        }
        with torch.autocast(self._device_type, enabled=False):
            terms = self.compare(features, logits, teacher_levels)
        pyramid = tuple(level for student_pass in passes for level in student_pass.features)
        return DistillationOutputs(losses, pyramid, logits, teacher_levels, terms)

    def _forward_labelled(self, inputs: Tensor, samples: Any) -> tuple[dict[str, Any], StudentPass]:
        """Return the student's losses, and the features and logits of the same forward pass."""
        head = dense_head(self.student)
        with capture_output(self.student.neck) as neck, capture_output(head) as captured:
            losses = self.student(inputs, samples, mode="loss")
        return losses, StudentPass(tuple(neck.output), logits_of_outputs(head, captured.output))

    def _forward_unlabelled(self, inputs: Tensor) -> StudentPass:
        """Return the student's features and logits, without losses and, if possible, without the boxes' branch."""
        features, head = self.student.extract_feat(inputs), dense_head(self.student)
        if self.rounds_head:
            return StudentPass(features, logits_of_outputs(head, head(features)))
        return StudentPass(features, class_logits(self.student, features))

    def observe(self, raw: dict[str, Any]) -> tuple[Levels, Levels]:
        """Return the teacher's features (N, C, H, W) and logits (N, K, H, W) by stride, using the cache if set."""
        if self.cache is not None:
            return self.cache.observe(raw["inputs"], raw["data_samples"])
        return self.teacher.observe(raw["inputs"])

    def compare(
        self, features: Levels, logits: Levels, teacher_levels: Mapping[int, TeacherLevel]
    ) -> dict[TermName, Tensor]:
        """Return the unweighted terms, each summed over the strides that both detectors have.

        `features` (N, C, H, W) and `logits` (N, K, H, W) are the student's. For method `frs`, with richness S:
        feature = sum_levels [ sum(S (F_t - adapter(F_s))^2) / sum(S) ],
        logit = sum_levels [ sum(S BCE(z_s, sigmoid(z_t))) / sum(S) ], less the BCE's minimum (see `divergence`).
        """
        if self.term_module is not None:
            return {name: self.term_module(features, teacher_levels) for name in self.terms}
        masks = {
            mask: {stride: mask(teacher_levels[stride]) for stride in self.strides}
            for mask in {term.mask for term in self.masked_terms.values()}
        }
        adapted = self.adapter({stride: features[stride].float() for stride in self.strides}) if self.adapter else {}
        terms: dict[TermName, Tensor] = {}
        for name, (mask, distance) in self.masked_terms.items():
            student_side = adapted if name == "feature" else logits
            teacher_side = {
                stride: teacher_levels[stride].features if name == "feature" else teacher_levels[stride].logits
                for stride in self.strides
            }
            per_level = [
                weighted_mean(distance(student_side[stride], teacher_side[stride]), masks[mask][stride])
                for stride in self.strides
            ]
            terms[name] = torch.stack(per_level).sum()
        return terms

    def weigh(self, terms: Mapping[TermName, Tensor]) -> Tensor:
        """Return the sum of weight x term; a weight that is not calibrated yet counts as 0."""
        return torch.stack([(self.weights.of(name) or 0.0) * terms[name] for name in self.terms]).sum()

    @property
    def layers(self) -> nn.Module | None:
        """The layers that belong to a term and train with the student: the adapter's or the term module's."""
        return self.adapter if self.term_module is None else self.term_module

    @property
    def calibrated(self) -> bool:
        """Whether every term has a weight."""
        return all(self.weights.of(name) is not None for name in self.terms)

    def factor(self, step: int) -> float:
        """Return the factor on all terms at `step`; it is 0 until all weights are calibrated."""
        return self.schedule.factor(step, self.weights.ramp_from) if self.calibrated else 0.0

    def _build_adapter(self, kind: AdapterName) -> Adapter:
        student_channels, teacher_channels = pyramid_channels(self.student), pyramid_channels(self.teacher.detector)
        return Adapter(self.strides, student_channels, teacher_channels, kind)

    def _by_stride(self, passes: Sequence[tuple[Tensor, ...]]) -> Levels:
        """Return the levels of one pass by stride, or of two passes concatenated along the batch dimension."""
        levels = (level[0] if len(level) == 1 else torch.cat(level) for level in zip(*passes, strict=True))
        return dict(zip(strides(self.student), levels, strict=True))

    @property
    def _device_type(self) -> str:
        return next(self.student.parameters()).device.type


def padding_to(preprocessor: Any, divisor: int) -> Any:
    """Return the data preprocessor with images padded to a multiple of `divisor`: itself or a copy.

    Levels of two detectors have one size only if both pad alike.
    """
    if preprocessor.pad_size_divisor == divisor:
        return preprocessor
    padding = copy.deepcopy(preprocessor)
    padding.pad_size_divisor = divisor
    return padding


def student_of(model: nn.Module) -> nn.Module:
    """Return the student of a distiller; a student without teacher is trained itself."""
    return model.student if isinstance(model, Distiller) else model


def common_strides(student: Detector, teacher: Teacher) -> tuple[int, ...]:
    """Return the strides that both detectors have, by which their levels are matched. Raises StrideMismatch if none."""
    student_strides = strides(student)
    common = tuple(stride for stride in student_strides if stride in teacher.strides)
    if not common:
        raise StrideMismatch(
            f"The teacher's strides {teacher.strides} and the student's strides {student_strides} have none in common."
        )
    return common


def check_class_maps(student: Detector, teacher: Teacher) -> None:
    """Raise HeadMismatch if the logit channels of the two detectors have different meanings."""
    student_map, teacher_map = class_map(student), class_map(teacher.detector)
    if student_map != teacher_map:
        raise HeadMismatch(
            "The logits of teacher and student have different meanings. Per location, the teacher has "
            f"{_describe(teacher_map)} and the student has {_describe(student_map)}."
        )


def _describe(channels: ClassMap) -> str:
    label = "objectness" if channels.objectness else f"{channels.outputs} classes"
    return f"{channels.anchors} anchor(s) x {label}"
