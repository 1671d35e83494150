"""Select classes of a detector by name: the detector then predicts these classes, in this order, and no others."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from frs.detectors.builder import ClassLayer
from frs.errors import UnsupportedDetector


class SelectedClasses(nn.Module):
    """The softmax classifier `full`, reduced to the classes at `chosen`.

    The probabilities of the other classes are added to the background's, so that those of the chosen classes do not
    change: (N, total + 1) -> (N, chosen + 1), background last.
    """

    chosen: Tensor
    rest: Tensor

    def __init__(self, full: nn.Module, total: int, chosen: Sequence[int]) -> None:
        super().__init__()
        self.full = full
        self.register_buffer("chosen", torch.tensor(chosen))
        self.register_buffer("rest", torch.tensor([row for row in range(total + 1) if row not in set(chosen)]))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (N, chosen + 1)."""
        logits = self.full(features)
        return torch.cat([logits[:, self.chosen], logits[:, self.rest].logsumexp(1, keepdim=True)], dim=1)


def select_classes(
    source: nn.Module, target: nn.Module, layers: Mapping[str, ClassLayer], total: int, chosen: Sequence[int]
) -> None:
    """Load the weights of `source`, which has `total` classes, into `target`, which has those at `chosen` of them.

    `layers` has the tensors of the class layers. Raises UnsupportedDetector if their layout is not known.
    """
    state = source.state_dict()
    for key, layer in layers.items():
        state[key] = state[key][_rows(key, layer, total, chosen)]
    target.load_state_dict(state)
    for parent, _, name in {key.rpartition(".")[0].rpartition(".") for key, layer in layers.items() if layer.others}:
        classifier = source.get_submodule(f"{parent}.{name}")
        setattr(target.get_submodule(parent), name, SelectedClasses(classifier, total, chosen))


def _rows(key: str, layer: ClassLayer, total: int, chosen: Sequence[int]) -> Tensor:
    """Return the positions of the rows of the chosen classes, and of the background's if there is one.

    In mmdet's heads, box regression has the coordinates of one class after those of another, and classification has the
    classes of one anchor after those of another.
    """
    if layer.others not in (0, 1) or (layer.others and layer.per_class != 1):
        raise UnsupportedDetector(f"The classes of {key} cannot be mapped by name.")
    rows = torch.arange(layer.per_class * total + layer.others)
    if "reg" in key.split(".")[-2]:
        return rows.view(total, layer.per_class)[list(chosen)].flatten()
    background = range(total, total + layer.others)
    return rows.view(layer.per_class, total + layer.others)[:, [*chosen, *background]].flatten()
