"""The traceable network returns what the detector's own `predict` returns."""

import inspect
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import pytest
import torch
from mmdet.structures import DetDataSample
from tiny import ARCHITECTURES, described

from frs.detector_spec import ConfigDetector, DescribedDetector
from frs.detectors import builder
from frs.errors import ExportUnsupported
from frs.export.candidates import CandidateNetwork
from frs.export.frs_runner import choose
from frs.export.frs_runner import suppress as suppress_arrays
from frs.export.network import Boxes, DetectorNetwork, best_pairs, suppress
from frs.export.onnx_file import post_processing
from frs.export.preprocessing import preprocessing_of

CONTENT, PADDED, SCALE = (84, 128), (96, 128), (0.5, 0.51)


def build(architecture: str, models: Path, **changes: Any) -> Any:
    """Return a tiny detector whose random scores pass its threshold."""
    torch.manual_seed(0)
    detector = builder.build(DescribedDetector.model_validate(described(architecture, **changes)), 3, models).eval()
    head = getattr(detector, "bbox_head", None)
    config = head.test_cfg if head else detector.test_cfg.rcnn
    config.score_thr = 0.0
    return detector


@torch.no_grad()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_predicts_the_same_boxes(architecture: str, models: Path) -> None:
    detector = build(architecture, models)
    pixels = torch.randn(1, 3, *PADDED)
    shapes = {"img_shape": CONTENT, "scale_factor": SCALE, "batch_input_shape": PADDED, "pad_shape": PADDED}
    sample = DetDataSample(metainfo=shapes | {"ori_shape": (168, 251)})
    expected = detector.predict(pixels, [sample], rescale=True)[0].pred_instances
    corners, scores, labels = DetectorNetwork(detector)(pixels, torch.tensor(CONTENT).float(), torch.tensor(SCALE))
    assert len(expected) > 10
    torch.testing.assert_close(scores, expected.scores)
    # equal scores may be in another order
    order, expected_order = (
        sorted(range(len(s)), key=lambda i, s=s, c=c, k=k: (-round(float(s[i]), 5), int(k[i]), *c[i].tolist()))
        for s, c, k in ((scores, corners, labels), (expected.scores, expected.bboxes, expected.labels))
    )
    assert labels[order].tolist() == expected.labels[expected_order].tolist()
    torch.testing.assert_close(corners[order], expected.bboxes[expected_order], atol=1e-3, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "faster_rcnn"])
def test_the_candidates_of_a_batch_give_the_same_boxes(architecture: str, models: Path) -> None:
    detector = build(architecture, models)
    config = detector.bbox_head.test_cfg
    config.nms_pre = 100_000  # a limit for each level, which the runner does not have
    images = 255 * torch.rand(2, 3, *PADDED)
    preprocessing = preprocessing_of(detector.data_preprocessor, (PADDED[1], PADDED[0]), fixed=True)
    network = CandidateNetwork(detector, preprocessing)
    corners, scores = network(images)
    metadata = post_processing(detector, preprocessing)
    assert corners.shape == (2, scores.shape[1], 4)
    assert scores.shape[2] == 3
    for number in range(2):
        pixels = images[number : number + 1].flip(1) if not preprocessing.rgb else images[number : number + 1]
        pixels = (pixels - network.mean) / network.std
        expected = DetectorNetwork(detector)(pixels, torch.tensor(PADDED).float(), torch.ones(2))
        settings = {name: metadata[name] for name in inspect.signature(choose).parameters if name in metadata}
        found = choose(corners[number].numpy(), scores[number].numpy(), (PADDED[1], PADDED[0]), **settings)
        assert len(found[1]) == len(expected[1]) > 10
        assert found[0].min() == pytest.approx(float(expected[0].min()), abs=1e-3), "clipped if the network clips"
        # convolutions sum a batch in another order
        torch.testing.assert_close(torch.from_numpy(found[1]), expected[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_image_without_objects_has_no_boxes(models: Path) -> None:
    detector = build("gfl", models)
    detector.bbox_head.test_cfg.score_thr = 1.0
    results = DetectorNetwork(detector)(torch.zeros(1, 3, *PADDED), torch.tensor(CONTENT).float(), torch.ones(2))
    assert [tuple(result.shape) for result in results] == [(0, 4), (0,), (0,)]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py", "more than two stages, or masks"),
        ("mmdet::reppoints/reppoints-moment_r50_fpn_1x_coco.py", "decoded in another way"),
    ],
)
def test_a_detector_that_predicts_otherwise_is_refused(config: str, reason: str, models: Path) -> None:
    detector = builder.build(ConfigDetector.model_validate({"config": config, "init": "random"}), 2, models)
    with pytest.raises(ExportUnsupported, match=reason):
        DetectorNetwork(detector)


def test_a_detector_with_another_suppression_is_refused(models: Path) -> None:
    detector = build("gfl", models)
    detector.bbox_head.test_cfg.nms = {"type": "soft_nms", "iou_threshold": 0.5}
    with pytest.raises(ExportUnsupported, match="plain NMS"):
        DetectorNetwork(detector)


def test_boxes_of_different_classes_do_not_suppress_each_other() -> None:
    corners = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10]])
    boxes = Boxes(corners, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([1, 0, 0]))
    assert suppress(boxes, 0.5, -1).tolist() == [1, 0]
    assert suppress(boxes, 0.5, 1).tolist() == [1]


def test_the_runner_suppresses_as_the_network() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = 50 * torch.rand(200, 4, generator=generator)
    corners[:, 2:] += corners[:, :2]
    scores, labels = torch.rand(200, generator=generator), torch.arange(200) % 3
    for limit in (-1, 7):
        kept = suppress_arrays(corners.numpy(), scores.numpy(), labels.numpy(), 0.4, limit)
        assert kept.tolist() == suppress(Boxes(corners, scores, labels), 0.4, limit).tolist()


def test_the_best_pairs_have_their_row_and_class() -> None:
    scores = torch.tensor([[0.1, 0.8], [0.6, 0.0]])
    best, rows, labels = best_pairs(scores, 0.05, 2)
    assert (best.tolist(), rows.tolist(), labels.tolist()) == (pytest.approx([0.8, 0.6]), [0, 1], [1, 0])
    assert len(best_pairs(scores, 0.05, -1)[0]) == 3
