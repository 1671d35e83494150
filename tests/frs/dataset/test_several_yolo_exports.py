"""Several YOLO exports in one archive are joined by split; files that disagree are refused or have an order."""

import pytest
from layout_writers import annotations
from small_uploads import LABEL, converted, draw, split_names, write

from frs.errors import BadDataset


def add(folder, images, labels, names):
    """Write labelled images."""
    for name in names:
        draw(folder / images / f"{name}.jpg")
        write(folder / labels / f"{name}.txt", LABEL)


def write_roboflow(folder, prefix, text="train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"):
    for split in ("train", "valid", "test"):
        add(folder, f"{split}/images", f"{split}/labels", [f"{prefix}_{split}"])
    write(folder / "data.yaml", f"{text}names: [cat]\n")


@pytest.mark.parametrize(
    "text", ["train: ../train/images\nval: ../valid/images\n", "train: ../train/images\n", "", "train: nowhere\n"]
)
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_splits_of_every_data_yaml_are_joined(tmp_path, text, order):
    first, second = order
    write_roboflow(tmp_path / "in" / first, first)
    write_roboflow(tmp_path / "in" / second, second, text)
    names = split_names(tmp_path / "in")
    assert names == {"train": {"a_train.jpg", "b_train.jpg"}, "val": {"a_valid.jpg", "b_valid.jpg"}}


def test_images_of_equal_names_in_two_exports_are_both_used(tmp_path):
    for folder in ("a", "b"):
        write_roboflow(tmp_path / "in" / folder, "x")
    content = annotations(converted(tmp_path / "in"), "train")
    assert [image["file_name"] for image in content["images"]] == [
        "a/train/images/x_train.jpg",
        "b/train/images/x_train.jpg",
    ]


def test_the_lists_of_every_obj_data_are_joined(tmp_path):
    for task in ("task1", "task2"):
        folder = tmp_path / "in" / task
        add(folder, "obj_train_data", "obj_train_data", ["0", f"{task}_1"])
        write(folder / "train.txt", f"data/obj_train_data/0.jpg\ndata/obj_train_data/{task}_1.jpg\n")
        write(folder / "obj.names", "cat\n")
        write(folder / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    target = converted(tmp_path / "in", 0.5)
    names = {image["file_name"] for split in ("train", "val") for image in annotations(target, split)["images"]}
    assert len(names) == 4


@pytest.mark.parametrize("shared", ["obj.names", "data/obj.names"])
def test_files_of_darknet_may_share_a_list_of_class_names(tmp_path, shared):
    for task in ("task1", "task2"):
        folder = tmp_path / "in" / task
        add(folder, "obj_train_data", "obj_train_data", [f"{task}_0"])
        write(folder / "train.txt", f"data/obj_train_data/{task}_0.jpg\n")
        write(folder / "obj.data", "train = data/train.txt\n")
    write(tmp_path / "in" / shared, "cat\n")
    names = split_names(tmp_path / "in", 0.5)
    assert names["train"] | names["val"] == {"task1_0.jpg", "task2_0.jpg"}


def test_a_second_arrangement_of_the_same_images_is_not_used(tmp_path):
    add(tmp_path / "in", "images", "labels", "0123")
    for fold, train, val in (("fold1", "012", "3"), ("fold2", "123", "0")):
        for split, names in (("train", train), ("val", val)):
            write(tmp_path / f"in/{fold}/{split}.txt", "".join(f"images/{name}.jpg\n" for name in names))
        write(tmp_path / f"in/{fold}/data.yaml", "train: train.txt\nval: val.txt\nnames: [cat]\n")
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg", "2.jpg"}, "val": {"3.jpg"}}


def test_cvats_task_of_another_subset_is_for_training(tmp_path):
    for subset, names in (("Train", "01"), ("Validation", "2"), ("Extra", "34"), ("default", "5")):
        add(tmp_path / "in", f"images/{subset}", f"labels/{subset}", names)
        write(tmp_path / f"in/{subset}.txt", "".join(f"data/images/{subset}/{name}.jpg\n" for name in names))
    keys = "".join(f"{subset}: {subset}.txt\n" for subset in ("Train", "Validation", "Extra", "default"))
    write(tmp_path / "in/data.yaml", f"{keys}names:\n  0: cat\npath: .\n")
    names = split_names(tmp_path / "in")
    assert names == {"train": {"0.jpg", "1.jpg", "3.jpg", "4.jpg", "5.jpg"}, "val": {"2.jpg"}}


@pytest.mark.parametrize(
    ("key", "lines"), [("minitrain", "01"), ("all", "0124"), ("minival", "2"), ("extra", "49"), ("labels", None)]
)
def test_a_list_that_is_no_split_of_its_own_is_not_used(tmp_path, key, lines):
    add(tmp_path / "in", "images", "labels", "01234")
    lists = {"train": "01", "val": "2", "test": "3"} | ({key: lines} if lines else {})
    for name, listed in lists.items():
        write(tmp_path / f"in/{name}.txt", "".join(f"images/{number}.jpg\n" for number in listed))
    write(tmp_path / "in/data.yaml", "".join(f"{name}: {name}.txt\n" for name in [*lists, key]) + "names: [cat]\n")
    assert split_names(tmp_path / "in") == {"train": {"0.jpg", "1.jpg"}, "val": {"2.jpg"}}


def test_yaml_files_of_different_names_that_disagree_are_refused(tmp_path):
    for split in ("train", "val"):
        add(tmp_path / "in", f"images/{split}", f"labels/{split}", [split])
    write(tmp_path / "in/coco8.yaml", "train: images/train\nval: images/val\nnames: [person, bicycle]\n")
    write(tmp_path / "in/valves.yaml", "train: images/train\nval: images/val\nnames: [valve, pump]\n")
    with pytest.raises(BadDataset) as error:
        converted(tmp_path / "in")
    assert error.value.message == "Class 0 is person in coco8.yaml, but valve in valves.yaml."
    assert "keep one of these files" in error.value.hint


@pytest.mark.parametrize(
    ("used", "other"),
    [
        ("data.yaml", "coco8.yaml"),
        ("dataset.yaml", "coco8.yaml"),
        ("valves.yaml", "yolov5/data/coco128.yaml"),
        ("sub/data.yaml", "coco8.yaml"),
    ],
)
def test_the_usual_name_and_a_shallower_file_count_first(tmp_path, used, other):
    for split in ("train", "val"):
        add(tmp_path / "in", f"images/{split}", f"labels/{split}", [split])
    write(tmp_path / "in" / used, "names: [valve, pump]\n")
    write(tmp_path / "in" / other, "names: [person, bicycle]\n")
    assert [row["name"] for row in annotations(converted(tmp_path / "in"), "train")["categories"]] == ["valve", "pump"]


def test_keypoints_that_two_exports_state_differently_are_refused(tmp_path):
    for folder, shape in (("a", "[2, 3]"), ("b", "[2, 2]")):
        write_roboflow(tmp_path / "in" / folder, folder, f"kpt_shape: {shape}\n")
    with pytest.raises(BadDataset, match=r"`kpt_shape` differs in a/data\.yaml and b/data\.yaml"):
        converted(tmp_path / "in")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images/{}/images", "labels/{}/images"),
        ("images/{}/images", "images/{}/labels"),
        ("set/images/{}/images/cam", "set/labels/{}/images/cam"),
    ],
)
def test_each_folder_named_images_may_correspond_to_labels(tmp_path, images, labels):
    for split in ("Train", "Validation"):
        add(tmp_path / "in", images.format(split), labels.format(split), [split])
    write(tmp_path / "in/data.yaml", "names: [cat]\n")
    assert split_names(tmp_path / "in") == {"train": {"Train.jpg"}, "val": {"Validation.jpg"}}


@pytest.mark.parametrize("labels", ["labels", "images"])
def test_the_suffix_of_a_label_file_may_be_upper_case(tmp_path, labels):
    add(tmp_path / "in", "images", labels, "01")
    (tmp_path / f"in/{labels}/1.txt").rename(tmp_path / f"in/{labels}/1.TXT")
    write(tmp_path / "in/classes.txt", "cat\n")
    names = split_names(tmp_path / "in", 0.5)
    assert names["train"] | names["val"] == {"0.jpg", "1.jpg"}


def test_an_unused_label_file_of_an_upper_case_suffix_is_named(tmp_path):
    add(tmp_path / "in", "images", "labels", "01")
    write(tmp_path / "in/labels/2.TXT", LABEL)
    write(tmp_path / "in/classes.txt", "cat\n")
    with pytest.raises(BadDataset, match=r"labels/2\.TXT belongs to no image"):
        converted(tmp_path / "in", 0.5)
