"""The feature term of FGD: foreground and background apart, the teacher's attention, and global relations.

Source: "Focal and Global Knowledge Distillation for Detectors", CVPR 2022, arXiv 2111.11837, section 3. The relations
are those of the global context block of "GCNet", ICCV workshops 2019. All in fp32.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from frs.distillation.adapter import Adapter
from frs.distillation.losses import weighted_mean
from frs.distillation.outputs import TeacherLevel
from frs.distillation.teacher import Levels
from frs.distillation_spec import AdapterName

TEMPERATURE = 0.5
"""Temperature T of both attentions, the paper's for all detectors."""
BACKGROUND, ATTENTION, GLOBAL = 0.5, 1.0, 0.005
"""Weights beta, gamma and lambda over alpha, the foreground's: the paper's for one-stage detectors with anchors."""


class FocalGlobal(nn.Module):
    """Compute FGD's term, L_focal + L_global (equations 11 and 12) over alpha; its layers train with the student.

    Teacher and student have a block of relations each, for each stride in `strides`.
    """

    def __init__(self, strides: Iterable[int], student_channels: int, teacher_channels: int, adapter: AdapterName):
        super().__init__()
        strides = tuple(strides)
        self.adapter = Adapter(strides, student_channels, teacher_channels, adapter)
        self.student_relations = nn.ModuleDict({str(stride): Relations(teacher_channels) for stride in strides})
        self.teacher_relations = nn.ModuleDict({str(stride): Relations(teacher_channels) for stride in strides})

    def forward(self, features: Levels, teacher_levels: Mapping[int, TeacherLevel]) -> Tensor:
        """Return the term, summed over levels, as a mean over the images of all processes.

        `features` are the student's by stride, (N, student channels, H, W).
        """
        adapted = self.adapter({stride: features[stride].float() for stride in teacher_levels})
        by_level = [self._compare(adapted[stride], level) for stride, level in teacher_levels.items()]
        by_image = torch.stack(by_level).sum(0).reshape(-1, 1, 1, 1)
        return weighted_mean(by_image, torch.ones_like(by_image))

    def _compare(self, student: Tensor, level: TeacherLevel) -> Tensor:
        """Return the term of one level for each image: (N,)."""
        teacher, key = level.features.detach().float(), str(level.stride)
        relations = (self.student_relations[key](student), self.teacher_relations[key](teacher))
        return (
            focal_error(student, teacher, level.boxes, level.stride)
            + ATTENTION * attention_error(student, teacher)
            + GLOBAL * (relations[0] - relations[1]).square().sum((1, 2, 3))
        )


class Relations(nn.Module):
    """The global context block R of equation 13: F + W_v2 ReLU(LN(W_v1 c)), c the sum of F under softmax(W_k F).

    W_v1 halves the channels. W_v2 starts at 0, as in GCNet, so that R(F) = F before training.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.key = nn.Conv2d(channels, 1, 1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.LayerNorm((hidden, 1, 1))
        self.expand = nn.Conv2d(hidden, channels, 1)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)  # type: ignore[arg-type]  # it has a bias

    def forward(self, features: Tensor) -> Tensor:
        """Return R(F): (N, C, H, W) -> (N, C, H, W)."""
        attention = self.key(features).flatten(2).softmax(2)
        context = (features.flatten(2) * attention).sum(2)[:, :, None, None]
        hidden = self.norm(self.reduce(context)).relu()
        related: Tensor = features + self.expand(hidden)
        return related


def focal_error(student: Tensor, teacher: Tensor, boxes: Sequence[Tensor], stride: int) -> Tensor:
    """Return the feature loss of each image, equation 9 over alpha: (N, C, H, W) each -> (N,).

    The sum over channels and locations of S A^S A^C (F_t - F_s)^2, with the teacher's attentions A and the scale S; the
    background counts `BACKGROUND` times as much.
    """
    foreground, scale = scale_mask(teacher, boxes, stride)
    weight = scale * torch.where(foreground, 1.0, BACKGROUND)
    attention = spatial_attention(teacher) * channel_attention(teacher)
    return (weight * attention * (teacher - student).square()).sum((1, 2, 3))


def attention_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the attention loss of each image, equation 10 over gamma: (N, C, H, W) each -> (N,).

    The L1 distance of the spatial attentions plus that of the channel attentions.
    """
    differences = (attention(student) - attention(teacher) for attention in (spatial_attention, channel_attention))
    return torch.stack([difference.abs().sum((1, 2, 3)) for difference in differences]).sum(0)


def spatial_attention(features: Tensor) -> Tensor:
    """Return A^S = H W softmax(G^S / T) over locations, equation 7: (N, C, H, W) -> (N, 1, H, W).

    G^S is the mean of |F| over channels, equation 5.
    """
    means = features.abs().mean(1, keepdim=True)
    flat: Tensor = (means.flatten(2) / TEMPERATURE).softmax(2) * means[0].numel()
    return flat.reshape(means.shape)


def channel_attention(features: Tensor) -> Tensor:
    """Return A^C = C softmax(G^C / T) over channels, equation 8: (N, C, H, W) -> (N, C, 1, 1).

    G^C is the mean of |F| over locations, equation 6.
    """
    means = features.abs().mean((2, 3), keepdim=True)
    attention: Tensor = (means / TEMPERATURE).softmax(1) * means.shape[1]
    return attention


def scale_mask(like: Tensor, boxes: Sequence[Tensor], stride: int) -> tuple[Tensor, Tensor]:
    """Return the foreground M and the scale S, (N, 1, H, W) each, for `like` (N, C, H, W): equations 2 to 4.

    M is true where a cell of `stride` pixels touches a box. There S is 1 / the number of cells of the smallest such
    box, elsewhere 1 / the number of the image's other cells. `boxes` holds the corners (M, 4) of each image's boxes in
    pixels of the network's input; M may be 0.
    """
    scale = torch.zeros(len(like), 1, *like.shape[2:], device=like.device)
    for image, corners in enumerate(boxes):
        low, high = (corners[:, :2] / stride).floor().int(), (corners[:, 2:] / stride).ceil().int()
        for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
            cells = scale[image, 0, max(0, top) : bottom, max(0, left) : right]
            cells.clamp_(min=1 / max(1, cells.numel()))
    foreground = scale > 0
    background_cells = (~foreground).sum((1, 2, 3), keepdim=True)
    return foreground, torch.where(foreground, scale, 1 / background_cells.clamp(min=1))
