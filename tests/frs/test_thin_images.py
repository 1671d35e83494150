"""An image whose shorter side would be scaled to less than two pixels is scaled to two, wherever images are."""

import json
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import numpy as np
import onnxruntime
import pytest
from mmdet.utils import register_all_modules
from PIL import Image

from frs.dataset.coco import CocoFile, read
from frs.dataset.shapes.drawing import draw_dataset
from frs.detector_spec import ConfigDetector
from frs.detectors.builder import load_base_config
from frs.export.frs_runner import fit
from frs.export.preprocessing import Preprocessing, build_graph, usual_size
from frs.schedule_spec import Schedule
from frs.training import batches
from frs.training.augmentation import MIXING
from frs.training.sampling import ImageDraw

GFL = load_base_config(ConfigDetector(config="mmdet::gfl/gfl_r50_fpn_1x_coco.py"))
SIZE = (96, 96)
LIGHT, STRONG, SIZES = (
    Schedule.model_validate(fields)
    for fields in ({"image_size": SIZE}, {"image_size": SIZE, "augmentation": "strong"}, {"train_sizes": [SIZE]})
)


@pytest.fixture(scope="module", params=[(2000, 2), (2, 2000), (96, 1), (1, 1)], ids=["wide", "high", "row", "pixel"])
def thin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CocoFile]:
    """Return the images and annotations of a drawn data set whose first image is very thin."""
    register_all_modules(init_default_scope=True)
    folder = tmp_path_factory.mktemp("thin")
    draw_dataset(folder, train=4, val=2, size=96)
    file = folder / "annotations" / "instances_train.json"
    content: dict[str, Any] = json.loads(file.read_text())
    width, height = request.param
    content["images"][0] |= {"width": width, "height": height}
    boxes = [box for box in content["annotations"] if box["image_id"] == content["images"][0]["id"]]
    boxes[0]["bbox"] = [0, 0, width / 2, height / 2]
    content["annotations"] = [box for box in content["annotations"] if box not in boxes[1:]]
    file.write_text(json.dumps(content))
    Image.new("RGB", (width, height), "red").save(folder / "train" / content["images"][0]["file_name"])
    return folder / "train", read(file)


@pytest.mark.parametrize(
    "pipeline",
    [
        batches.test_pipeline(SIZE),
        batches.training_pipeline(LIGHT, GFL),
        batches.training_pipeline(SIZES, GFL),
        batches.training_pipeline(STRONG, GFL),
        batches.training_pipeline(STRONG, GFL, MIXING),
    ],
    ids=["evaluation", "light", "several sizes", "strong", "mosaic and mixup"],
)
def test_a_very_thin_image_is_loaded(thin: tuple[Path, CocoFile], pipeline: batches.Pipeline) -> None:
    folder, coco = thin
    images = batches.DetectionImages(coco, folder, pipeline, 0, range(4))
    samples = [images[ImageDraw(epoch, 0)] for epoch in range(8)]
    assert all(min(sample["inputs"].shape) >= 2 for sample in samples)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("shape", [(2, 2000), (2000, 2)])
def test_exported_files_and_their_runner_scale_a_very_thin_image(fixed: bool, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    expected = [max(2, round(side * 96 / 2000)) for side in shape]
    graph = build_graph(Preprocessing(SIZE, (0.0,) * 3, (1.0,) * 3, True, 32, 0.0, fixed))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels, content, scale = session.run(["pixels", "content", "scale"], {"image": image})
    assert content.tolist() == expected
    height, width = expected
    assert (pixels[0, :, :height, :width] == 200).all()
    frame, factors = fit(image, [*SIZE], [*SIZE], [0.0] * 3)
    assert (frame[:height, :width] == 200).all() and frame.sum() == 200 * 3 * height * width
    assert factors.tolist() == pytest.approx(scale.tolist())
    assert usual_size([shape[::-1]], SIZE) == (width, height)
