"""A one-stage detector from a batch of images to the boxes and scores of all priors, before thresholds and NMS.

For runtimes of devices that have no NMS, no tensors of variable size, or their own post-processing.
"""

import torch
from torch import Tensor, nn

from frs.detectors.heads import Detector, dense_head
from frs.errors import ExportUnsupported
from frs.export.levels import Decode, decoder_of, levels_of
from frs.export.network import check_exportable
from frs.export.preprocessing import Preprocessing


class CandidateNetwork(nn.Module):
    """Predicts the boxes of all priors for a batch of images of one size."""

    mean: Tensor
    std: Tensor

    def __init__(self, detector: Detector, preprocessing: Preprocessing) -> None:
        """Raise ExportUnsupported if the detector has two stages or its `predict` is not repeated by `frs.export`."""
        super().__init__()
        check_exportable(detector)
        self.detector, self.preprocessing = detector.eval(), preprocessing
        self.decode = self._decoder()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return corners (B, P, 4) in pixels of the input and scores (B, P, K), 0 to 1, of P priors and K classes.

        `images` (B, 3, H, W) is RGB, 0 to 255, fp32. H and W are multiples of the coarsest stride.
        """
        pixels = images if self.preprocessing.rgb else images.flip(1)
        pyramid = self.detector.extract_feat((pixels - self.mean) / self.std)
        head, batch = dense_head(self.detector), images.shape[0]
        corners, scores = [], []
        for level in levels_of(head, pyramid):
            decoded = self.decode(head, level.priors, level.boxes, level.stride)
            products = level.scores if level.factors is None else level.scores * level.factors[:, None]
            corners.append(decoded.reshape(batch, -1, 4))
            scores.append(products.reshape(batch, -1, products.shape[1]))
        return torch.cat(corners, dim=1), torch.cat(scores, dim=1)

    def _decoder(self) -> Decode:
        if getattr(self.detector, "roi_head", None) is not None:
            raise ExportUnsupported(
                f"{type(self.detector).__name__} cannot be exported without NMS: its second stage takes the boxes that"
                " NMS keeps. Leave out the format `onnx-no-nms`."
            )
        decode = decoder_of(dense_head(self.detector))
        assert decode is not None  # by check_exportable
        return decode
