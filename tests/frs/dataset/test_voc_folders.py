"""Pascal VOC in several folders: the lists of each are obeyed, and each XML file gets the image of its own folder."""

import pytest
from layout_writers import all_boxes
from small_uploads import converted, draw, format_voc, split_names, write, write_voc_root

from frs.errors import BadDataset

LISTS = {"train": "0 1", "val": "2", "test": "3"}


@pytest.mark.parametrize("folder", ["VOC2012", "VOCdevkit/VOC2012", "data/VOCdevkit/VOC2012"])
@pytest.mark.parametrize("val", ["val", "valid"])
def test_lists_are_obeyed_in_a_folder_beside_other_files(tmp_path, folder, val):
    write_voc_root(tmp_path / "in" / folder, "0123", LISTS | {val: "2"})
    write(tmp_path / "in/README.txt", "hello")
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg"}, "val": {"2.jpg"}}


def test_a_validation_fraction_takes_no_listed_test_image(tmp_path):
    write_voc_root(tmp_path / "in/VOC2007", "0123", {"train": "0 1", "test": "2 3"})
    write(tmp_path / "in/README.txt", "hello")
    names = split_names(tmp_path / "in", 0.5)
    assert names["train"] | names["val"] == {"0.jpg", "1.jpg"}


def test_the_lists_of_two_years_with_equal_names_are_joined_by_split(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        write_voc_root(tmp_path / "in" / year, "0123", LISTS)
    target = converted(tmp_path / "in")
    assert set(all_boxes(target, "train")) == {
        f"{year}/JPEGImages/{n}.jpg" for year in ("VOC2007", "VOC2012") for n in (0, 1)
    }
    assert set(all_boxes(target, "val")) == {f"{year}/JPEGImages/2.jpg" for year in ("VOC2007", "VOC2012")}


def test_a_year_that_lists_only_test_images_adds_none(tmp_path):
    write_voc_root(tmp_path / "in/trainval/VOC2007", "012", {"trainval": "0 1", "val": "2"})
    write_voc_root(tmp_path / "in/test/VOC2007", "789", {"test": "7 8 9"})
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg"}, "val": {"2.jpg"}}


def test_labelled_images_outside_the_folders_with_lists_are_split_by_folder(tmp_path):
    write_voc_root(tmp_path / "in/VOC2012", "0123", LISTS)
    for folder, name in (("more/night", "4"), ("more/val", "5"), ("more/test", "6")):
        draw(tmp_path / f"in/{folder}/{name}.jpg")
        write(tmp_path / f"in/{folder}/{name}.xml", format_voc(f"{name}.jpg"))
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg", "4.jpg"}, "val": {"2.jpg", "5.jpg"}}


def test_an_error_in_a_list_names_its_folder(tmp_path):
    write_voc_root(tmp_path / "in/VOC2012", "012", {"train": "0 gone", "val": "2"})
    write_voc_root(tmp_path / "in/VOC2007", "3", {"train": "3"})
    with pytest.raises(BadDataset, match=r"VOC2012/ImageSets/Main/train.txt, line 2: there is no image gone"):
        converted(tmp_path / "in")


@pytest.mark.parametrize(
    ("images", "xml"),
    [
        ("{}/images", "{}/annotations"),
        ("images/{}", "annotations/{}"),
        ("{}/data", "{}/labels"),
        ("{}/JPEGImages", "{}/Annotations"),
        ("set/{}/images", "set/{}/labels/xml"),
        ("{}/photos/cam1", "{}/boxes/cam1"),
    ],
)
@pytest.mark.parametrize("state", ["{}.jpg", "unknown", ""])
def test_images_of_equal_names_in_two_splits_belong_to_the_nearest_xml_files(tmp_path, images, xml, state):
    for split, width in (("train", 96), ("val", 80), ("test", 64)):
        for name in "01":
            draw(tmp_path / "in" / images.format(split) / f"{name}.jpg", width)
            draw(tmp_path / f"in/masks/{split}/{name}.jpg", 32)
            write(tmp_path / "in" / xml.format(split) / f"{name}.xml", format_voc(state.format(name), width))
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg"}, "val": {"0.jpg", "1.jpg"}}


def test_images_that_are_equally_near_are_refused_with_both_names(tmp_path):
    for folder in ("a", "b"):
        draw(tmp_path / f"in/{folder}/0.jpg")
    write(tmp_path / "in/xml/0.xml", format_voc("0.jpg"))
    with pytest.raises(BadDataset, match=r"xml/0\.xml may belong to a/0\.jpg or b/0\.jpg"):
        converted(tmp_path / "in", 0.5)


def test_cvats_task_of_no_subset_is_for_training(tmp_path):
    lists = {"Train": "0 1", "Validation": "2", "default": "3 4", "Extra": "5", "night_1": "6"}
    write_voc_root(tmp_path / "in", "0123456", lists)
    assert split_names(tmp_path / "in") == {"train": {f"{n}.jpg" for n in (0, 1, 3, 4, 5, 6)}, "val": {"2.jpg"}}


@pytest.mark.parametrize("name", ["trainval", "all", "minival", "cat", "cat_train", "cat_test", "cat_trainval"])
def test_a_list_of_images_that_are_listed_in_a_split_is_not_used(tmp_path, name):
    write_voc_root(tmp_path / "in", "0123456", LISTS | {name: "2 3 4"})
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg"}, "val": {"2.jpg"}}


@pytest.mark.parametrize("lists", [{"trainval": "0 1 4"}, {"cat_train": "4"}, {"unlabelled": "7 8"}])
def test_only_labelled_images_of_no_other_list_are_added(tmp_path, lists):
    write_voc_root(tmp_path / "in", "01234", LISTS | lists)
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg"}, "val": {"2.jpg"}}


def test_the_lists_by_tag_that_vott_writes_are_joined(tmp_path):
    write_voc_root(tmp_path / "in", "0123", {})
    for tag, flags in (("cat", (1, 1, -1, 1)), ("big dog", (-1, 1, -1, 1))):
        lines = [f"{n}.jpg {flag}" for n, flag in enumerate(flags)]
        write(tmp_path / f"in/ImageSets/Main/{tag}_val.txt", "\r\n".join(lines[:1]))
        write(tmp_path / f"in/ImageSets/Main/{tag}_train.txt", "\r\n".join(lines[1:]))
    assert split_names(tmp_path / "in") == {"train": {"1.jpg", "2.jpg", "3.jpg"}, "val": {"0.jpg"}}


def test_the_suffix_of_an_xml_file_may_be_upper_case(tmp_path):
    write_voc_root(tmp_path / "in", "012", {"train": "0 1", "val": "2"})
    for name in "02":
        (tmp_path / f"in/Annotations/{name}.xml").rename(tmp_path / f"in/Annotations/{name}.XML")
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg"}, "val": {"2.jpg"}}
