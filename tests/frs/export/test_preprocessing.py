"""The preprocessing in the file against mmdet's: resize, pad, normalise."""

from pathlib import Path

import frs.detectors._mmdet_init  # noqa: F401

import numpy as np
import onnxruntime
import pytest
from mmdet.models import DetDataPreprocessor
from mmdet.utils import register_all_modules
from mmengine.dataset import Compose
from PIL import Image

from frs.export.preprocessing import build_graph, preprocessing_of, usual_size
from frs.training.batches import test_pipeline as evaluation_pipeline

SIZE = (64, 48)
NORMALISATION = {"mean": [100.0, 110.0, 120.0], "std": [50.0, 55.0, 60.0]}


def outputs(image: np.ndarray, tmp_path: Path, bgr_to_rgb: bool, fixed: bool = False, **settings: object):
    """Return mmdet's input, content and scale, then the graph's."""
    register_all_modules()
    Image.fromarray(image).save(tmp_path / "image.png")
    sample = Compose(evaluation_pipeline(SIZE))({"img_path": str(tmp_path / "image.png"), "img_id": 0})
    preprocessor = DetDataPreprocessor(bgr_to_rgb=bgr_to_rgb, pad_size_divisor=32, **settings)
    batch = preprocessor({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]})
    expected = batch["inputs"].numpy(), sample["data_samples"].img_shape, sample["data_samples"].scale_factor
    graph = build_graph(preprocessing_of(preprocessor, SIZE, fixed))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return expected, session.run(["pixels", "content", "scale"], {"image": image})


def noise(height: int, width: int) -> np.ndarray:
    smooth = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("bgr_to_rgb", [True, False])
@pytest.mark.parametrize("shape", [(96, 128), (48, 64), (64, 48), (33, 100), (101, 37), (20, 30)])
def test_an_image_of_any_shape_becomes_mmdets_input(shape: tuple[int, int], bgr_to_rgb: bool, tmp_path: Path) -> None:
    (pixels, content, scale), result = outputs(noise(*shape), tmp_path, bgr_to_rgb, **NORMALISATION)
    assert result[0].shape == pixels.shape
    assert np.abs(result[0] - pixels).max() <= 1.01 / min(NORMALISATION["std"])  # one of 255 grey levels
    assert tuple(result[1]) == content
    assert result[2] == pytest.approx(scale)


def test_half_the_size_is_exact(tmp_path: Path) -> None:
    (pixels, _, _), result = outputs(noise(96, 128), tmp_path, True, **NORMALISATION)
    np.testing.assert_allclose(result[0], pixels, atol=1e-6)


def test_the_usual_size_is_the_one_of_most_scaled_images() -> None:
    assert usual_size([(640, 480), (1280, 960), (480, 640)], (160, 160)) == (160, 120)
    assert usual_size([(30, 40)], (64, 48)) == (48, 64)


def test_an_input_without_normalisation_is_padded_with_its_value(tmp_path: Path) -> None:
    (pixels, _, _), result = outputs(noise(33, 100), tmp_path, False, pad_value=114)
    assert np.abs(result[0] - pixels).max() <= 1
    assert (result[0][..., -1, :] == 114).all()


@pytest.mark.parametrize(("shape", "scaled"), [((100, 50), [48, 24]), ((50, 100), [32, 64]), ((48, 64), [48, 64])])
def test_a_fixed_size_holds_images_of_any_shape(shape: tuple[int, int], scaled: list[int], tmp_path: Path) -> None:
    _, (pixels, content, _) = outputs(noise(*shape), tmp_path, True, fixed=True, **NORMALISATION)
    assert pixels.shape == (1, 3, 64, 64)
    assert content.tolist() == scaled
