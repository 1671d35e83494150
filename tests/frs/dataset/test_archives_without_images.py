"""An export without its images is refused with that reason, whatever its layout."""

import pytest
from small_uploads import LABEL, converted, draw, format_coco, format_voc, write

from frs.errors import BadDataset, LayoutUnknown

VOC = {"Annotations/a.xml": format_voc("a.jpg"), "ImageSets/Main/default.txt": "a\n"}
EXPORTS = {
    "COCO with splits": {f"annotations/instances_{s}.json": format_coco(["a.jpg"]) for s in ("Train", "Validation")},
    "COCO without splits": {"annotations/instances_default.json": format_coco(["a.jpg"])},
    "several COCO files": {f"{task}.json": format_coco(["a.jpg"]) for task in "ab"},
    "COCO in folders": {"README.txt": "hello", "a/annotations/instances_default.json": format_coco(["a.jpg"])},
    "COCO in single folders": {"a/b/c/annotations/instances_default.json": format_coco(["a.jpg"])},
    "Pascal VOC": VOC,
    "Pascal VOC in a folder": {"README.txt": "hello"} | {f"VOC/{name}": text for name, text in VOC.items()},
    "XML files": {"a.xml": format_voc("a.jpg")},
    "YOLO": {"data.yaml": "names: [cat]\n", "labels/train/a.txt": LABEL},
    "YOLO with invalid names": {"data.yaml": "names: cat\n", "labels/train/a.txt": LABEL},
    "Darknet": {"obj.data": "train = data/train.txt\n", "obj.names": "cat\n", "obj_train_data/a.txt": LABEL},
    "labelImg": {"classes.txt": "cat\n", "a.txt": LABEL},
}


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("val_fraction", [None, 0.5])
def test_an_export_without_images_is_refused_with_that_reason(tmp_path, name, val_fraction):
    for file, text in EXPORTS[name].items():
        write(tmp_path / "in" / file, text)
    with pytest.raises(BadDataset) as error:
        converted(tmp_path / "in", val_fraction)
    assert (error.value.code, error.value.message) == ("bad_dataset", "The archive has no images.")
    assert "Save images" in error.value.hint


@pytest.mark.parametrize(
    "files", [{"notes.txt": "hello"}, {"a.json": '{"shapes": [], "imagePath": "a.jpg"}'}, {"x.yaml": "epochs: 3\n"}]
)
def test_files_that_are_no_annotations_of_a_known_layout_are_no_export(tmp_path, files):
    for file, text in files.items():
        write(tmp_path / "in" / file, text)
    with pytest.raises(LayoutUnknown):
        converted(tmp_path / "in", 0.5)


def test_images_of_a_kind_that_is_not_read_are_images(tmp_path):
    for name in "ab":
        draw(tmp_path / f"in/{name}.png").rename(tmp_path / f"in/{name}.tif")
    write(tmp_path / "in/result.json", format_coco(["a.tif", "b.tif"]))
    converted(tmp_path / "in", 0.5)
