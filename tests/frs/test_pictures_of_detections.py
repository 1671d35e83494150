"""The images in `detections.png` are those that training reads; the boxes have their coordinates."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from frs.comparison.pictures.side_by_side import read_image


def test_an_image_is_turned_upright_and_scaled_to_the_size_of_a_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1280, 320)).save(tmp_path / "turned.jpg", exif=exif)
    picture, scale = read_image(tmp_path, "turned.jpg")
    assert (picture.shape, scale) == ((640, 160, 3), 0.5)


def test_a_small_image_keeps_its_size_and_colours(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "orange").save(tmp_path / "a.png")
    picture, scale = read_image(tmp_path, "a.png")
    assert (picture.shape, scale, picture[0, 0].tolist()) == ((20, 30, 3), 1, [255, 165, 0])


def test_an_image_of_16_bits_has_the_brightness_that_training_sees(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 30), 100 << 8, np.uint16))
    assert read_image(tmp_path, "a.png")[0].tolist() == np.full((20, 30, 3), 100).tolist()


@pytest.mark.parametrize("name", ["absent.png", "text.png", "../outside.png", "bomb.bmp"])
def test_an_image_that_cannot_be_read_is_grey(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "bomb.bmp")
    content = (tmp_path / "bomb.bmp").read_bytes()
    sides = b"".join(side.to_bytes(4, "little") for side in (60_000, 60_000))
    (tmp_path / "bomb.bmp").write_bytes(content[:18] + sides + content[26:])
    picture, scale = read_image(tmp_path, name)
    assert (np.unique(picture).tolist(), scale) == ([200], 1)
