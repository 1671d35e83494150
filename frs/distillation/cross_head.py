"""The term of CrossKD: what the teacher's head predicts from the student's head features, against its own predictions.

Source: "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024, arXiv 2306.11369, section 3. All
in fp32. The teacher's box branch runs again on its features, because `Teacher.observe` and its cache leave boxes out.
"""

from collections.abc import Mapping

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from frs.detectors.head_branches import Branch, branches, decode_boxes, predicts_distributions, scale_outputs
from frs.detectors.heads import Detector, class_map
from frs.distillation.outputs import TeacherLevel
from frs.distillation.teacher import Levels, Teacher


class CrossHead(nn.Module):
    """Compute CrossKD's term: (sum of class distances + sum of S x box distances) / sum of S, over all levels.

    The student's features before the last stacked convolution of each branch pass through the rest of the teacher's
    branch, after a 1x1 convolution if the numbers of channels differ. S is the teacher's highest class probability of
    an anchor: it weighs the boxes, and its sum normalises both parts as the expected number of objects.

    Raises HeadMismatch if a head has no branches of stacked convolutions.
    """

    def __init__(self, student: Detector, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.student_branches, teacher_branches = branches(student), branches(teacher.detector)  # tuples, no submodules
        self.class_adapter = _adapter(self.student_branches.classes, teacher_branches.classes)
        self.box_adapter = _adapter(self.student_branches.boxes, teacher_branches.boxes)

    def forward(self, features: Levels, teacher_levels: Mapping[int, TeacherLevel]) -> Tensor:
        """Return the term for the student's features (N, C, H, W) by stride; gradients do not reach the teacher."""
        sums, weights = [], []
        for stride, level in teacher_levels.items():
            student = features[stride].float()
            score = level.logits.detach().float().unflatten(1, (class_map(self.teacher.detector).anchors, -1))
            weight = score.amax(2).sigmoid()
            sums.append(self._compare_classes(student, level) + (weight * self._compare_boxes(student, level)).sum())
            weights.append(weight.sum())
        total = reduce_mean(torch.stack(weights).sum())
        return torch.stack(sums).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)

    def _compare_classes(self, student: Tensor, level: TeacherLevel) -> Tensor:
        """Return the sum of the class distances of a level."""
        own, teacher = self.student_branches.classes, branches(self.teacher.detector).classes
        return quality_focal_loss(teacher.rest(self.class_adapter(own.first(student))), level.logits).sum()

    def _compare_boxes(self, student: Tensor, level: TeacherLevel) -> Tensor:
        """Return the box distances of a level: (N, anchors, H, W)."""
        detector, index = self.teacher.detector, self.teacher.strides.index(level.stride)
        own, teacher = self.student_branches.boxes, branches(detector).boxes
        crossed = teacher.rest(self.box_adapter(own.first(student)))
        with torch.no_grad():
            target = teacher.rest(teacher.first(level.features.float()))
        if predicts_distributions(detector):
            return side_divergence(*(scale_outputs(detector, outputs, index) for outputs in (crossed, target)))
        distances = giou_distance(*(decode_boxes(detector, outputs, index) for outputs in (crossed, target)))
        images, _, rows, columns = target.shape
        return distances.reshape(images, rows, columns, -1).permute(0, 3, 1, 2)


def _adapter(student: Branch, teacher: Branch) -> nn.Module:
    if student.channels == teacher.channels:
        return nn.Identity()
    return nn.Conv2d(student.channels, teacher.channels, 1)


def quality_focal_loss(crossed: Tensor, teacher: Tensor) -> Tensor:
    """Return |p - p_t| BCE(p, p_t) for two tensors of logits of one shape: the class distance, 0 where both agree.

    The quality focal loss of "Generalized Focal Loss", NeurIPS 2020, with beta = 1 and the teacher's probability p_t as
    its soft label.
    """
    logits, target = crossed.float(), teacher.detach().float().sigmoid()
    loss = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (logits.sigmoid() - target).abs() * loss


def side_divergence(crossed: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(p_t || p) of the box's sides, summed over the four: (N, 4 x bins, H, W) each -> (N, 1, H, W).

    The outputs are logits of the distribution of each side over bins, as in "Localization Distillation", CVPR 2022.
    """
    log_p, log_t = (x.float().unflatten(1, (4, -1)).log_softmax(2) for x in (crossed, teacher.detach()))
    return (log_t.exp() * (log_t - log_p)).sum((1, 2)).unsqueeze(1)


def giou_distance(crossed: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - GIoU of two tensors of corners (..., 4): (...)."""
    overlaps: Tensor = bbox_overlaps(crossed.float(), teacher.detach().float(), mode="giou", is_aligned=True)
    return 1 - overlaps
