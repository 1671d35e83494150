"""Fake quantisation: a detector computes in fp32 as its INT8 file will, rounded at the same places.

`frs.export.quantise` has onnxruntime quantise the tensors that convolutions, linear layers, additions, ReLUs and max
pools of the exported graph take and return. The same operators are intercepted here as torch runs them, whatever module
calls them, so that every architecture that can be exported is covered. Rounding has the gradient 1 inside the range and
0 outside (straight-through estimator, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, section 3).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from frs.detectors.heads import Detector, dense_head

Range = tuple[float, float]
"""Lowest and highest value of a tensor."""
QUERIES = {"__get__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point"}
"""Functions that read no values."""
MAX_WEIGHT, MAX_ACTIVATION = 127, 255
"""Weights are rounded to -127 to 127, activations to 0 to 255, as onnxruntime does."""


class FakeQuantiser:
    """Quantises a detector's network in train mode, and measures the ranges of its tensors.

    It is attached by hooks: it adds no module, parameter or buffer, so the detector's weights remain plain.
    """

    def __init__(self, detector: Detector) -> None:
        """Attach to `detector`. Batch norms keep their running statistics from now on, as the exported file does."""
        self.ranges: dict[str, Range] = {}
        """Measured ranges of the tensors; one without has the range of its values."""
        self._detector = detector
        self._measured: dict[str, Range] | None = None
        self._running: list[_QuantisedOperators] = []
        for name, part in _parts(detector).items():
            part.register_forward_pre_hook(partial(self._enter, name))
            part.register_forward_hook(self._leave, always_call=True)

    def measure(self, batches: Iterable[Any], progress: Callable[[int], None]) -> dict[str, Range]:
        """Return the range of every tensor over the raw batches, from the detector in eval mode, without rounding.

        `progress` is called with the number of batches after each.
        """
        with self._measuring() as measured:
            for number, batch in enumerate(batches, start=1):
                self._detector.test_step(batch)
                progress(number)
        return measured

    @contextmanager
    def _measuring(self) -> Iterator[dict[str, Range]]:
        modes = {module: module.training for module in self._detector.modules()}
        self._detector.eval()
        self._measured = {}
        try:
            with torch.no_grad():
                yield self._measured
        finally:
            self._measured = None
            for module, training in modes.items():
                module.training = training

    def _enter(self, name: str, part: nn.Module, inputs: Any) -> None:
        if not part.training and self._measured is None:
            return
        for module in part.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        self._running.append(_QuantisedOperators(name, self.ranges, self._measured))
        self._running[-1].__enter__()

    def _leave(self, part: nn.Module, inputs: Any, outputs: Any) -> Any:
        """Return the outputs rounded; None, which changes nothing, if the part is not quantised or has failed."""
        if not self._running:
            return None
        operators = self._running.pop()
        operators.__exit__(None, None, None)
        return None if outputs is None else operators.rounded(outputs)


def _parts(detector: Detector) -> dict[str, nn.Module]:
    """Return the modules that hold the detector's network; what else its losses compute is not quantised."""
    parts = {"backbone": detector.backbone, "neck": detector.neck, "head": dense_head(detector)}
    roi_head = getattr(detector, "roi_head", None)
    return parts | ({"roi_head": roi_head.bbox_head} if roi_head is not None else {})


class _QuantisedOperators(TorchFunctionMode):
    """The operators of one forward pass of a part.

    onnxruntime fuses a layer or an addition with the batch norm and the ReLU behind it: only their result is rounded.
    So results are rounded when they are used, unless the user is such an operator.
    """

    def __init__(self, part: str, ranges: dict[str, Range], measured: dict[str, Range] | None) -> None:
        super().__init__()
        self.part, self.ranges, self.measured = part, ranges, measured
        self.count = 0
        """Number of tensors that were rounded so far; it identifies a tensor in `ranges`."""
        self.results = WeakTensorKeyDictionary()
        """Tensors that are rounded if they are used, with their rounded values once they were used."""
        layer = (self._layer, ("conv2d", "linear"))
        fused = (self._fused, ("batch_norm", "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp"))
        add = (self._add, ("add", "__add__", "__radd__", "__iadd__"))
        others = (self._max_pool, ("max_pool2d",)), (self._group_norm, ("group_norm",))
        self.handlers = {name: handler for handler, names in (layer, fused, add, *others) for name in names}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function of torch, with rounded tensors."""
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in QUERIES:
            return func(*args, **kwargs)
        if name in self.handlers:
            return self.handlers[name](func, *args, **kwargs)
        return func(*self.rounded(args), **self.rounded(kwargs))

    def rounded(self, values: Any) -> Any:
        """Return the values, which may be nested, with the results among them rounded."""
        return tree_map_only(Tensor, lambda tensor: self._round(tensor) if tensor in self.results else tensor, values)

    def _layer(self, func: Any, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weight = weight if self.measured is not None else round_weight(weight)
        return self._result(func(self._round(input), weight, *args, **kwargs))

    def _fused(self, func: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(input, Tensor) or input not in self.results:
            return func(input, *args, **kwargs)
        rounded = self.results[input]
        return self._result(func(input if rounded is None else rounded, *args, **kwargs))

    def _add(self, func: Any, input: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
        if not all(isinstance(value, Tensor) and value.is_floating_point() for value in (input, other)):
            return func(*self.rounded((input, other, *args)), **kwargs)
        return self._result(torch.add(self._round(input), self._round(other), *args, **kwargs))

    def _max_pool(self, func: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = func(self._round(input), *args, **kwargs)
        self.results[output] = output  # the largest of rounded values is one
        return output

    def _group_norm(
        self,
        func: Any,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        """Return a group norm as it is exported: normalisation and multiplication in fp32, then a rounded addition."""
        input = self.rounded(input)
        if weight is None or bias is None:
            return func(input, num_groups, weight, bias, eps)
        scaled = func(input, num_groups, weight, None, eps)
        return self._result(self._round(scaled) + self._round(bias).reshape(-1, *[1] * (input.ndim - 2)))

    def _result(self, output: Tensor) -> Tensor:
        self.results[output] = None
        return output

    def _round(self, tensor: Tensor) -> Tensor:
        """Return the tensor rounded to 256 values over its range; while ranges are measured, the tensor itself."""
        if (known := self.results.get(tensor)) is not None:
            return known
        key = f"{self.part}.{self.count}"
        self.count += 1
        if self.measured is None:
            rounded = round_activation(tensor, self.ranges.get(key) or _range_of(tensor))
        else:
            rounded, (low, high) = tensor, _range_of(tensor)
            lowest, highest = self.measured.get(key, (0.0, 0.0))
            self.measured[key] = min(low, lowest), max(high, highest)
        self.results[tensor] = self.results[rounded] = rounded
        return rounded


def round_weight(weight: Tensor) -> Tensor:
    """Return a layer's weight (O, ...) rounded to 8 bits, symmetrically for each output channel.

    A batch norm that is folded into the layer multiplies each channel by a number, which changes no rounded value.
    """
    largest = weight.detach().abs().flatten(1).amax(1)
    scale = torch.where(largest > 0, largest / MAX_WEIGHT, 1.0)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -MAX_WEIGHT, MAX_WEIGHT)


def round_activation(tensor: Tensor, limits: Range) -> Tensor:
    """Return the tensor rounded to 256 values, evenly spaced from the lower to the higher limit; 0 is one of them."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = (high - low) / MAX_ACTIVATION
    if scale < torch.finfo(torch.float32).tiny:
        scale = 1.0
    return torch.fake_quantize_per_tensor_affine(tensor, scale, round(-low / scale), 0, MAX_ACTIVATION)


def _range_of(tensor: Tensor) -> Range:
    if not tensor.numel():
        return 0.0, 0.0
    low, high = torch.stack(tensor.detach().aminmax()).tolist()
    return low, high
