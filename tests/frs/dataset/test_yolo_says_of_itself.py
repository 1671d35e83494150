"""What a YOLO data set states is obeyed: `path`, `train`, `val`, `test`, `names`, `kpt_shape` and lists of images."""

from pathlib import Path

import pytest
from layout_writers import all_boxes, annotations
from PIL import Image

from frs.dataset.check import check_split
from frs.dataset.upload.layouts import convert
from frs.errors import BadDataset, NoValidationSplit

LABEL = "1 0.5 0.5 0.25 0.25\n"
BOX = ("dog", (36.0, 24.0, 24.0, 16.0))


def write(folder: Path, images: str, count: int = 2, label: str = LABEL, labels: str | None = None) -> None:
    """Write images named after their folder, and label files in `labels`, by default beside the images."""
    for number in range(count):
        image = folder / images / f"{images.replace('/', '_')}_{number}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(image)
        text = (folder / (images if labels is None else labels) / image.name).with_suffix(".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(label)


def write_yaml(folder: Path, text: str, name: str = "data.yaml") -> None:
    (folder / name).write_text(text if "names" in text else f"{text}\nnames: [cat, dog]\n")


def images(folder: Path, val_fraction: float | None = None) -> tuple[set[str], set[str]]:
    """Convert, and return the names of the images in both splits."""
    target = folder.with_name("converted")
    assert convert(folder, target, val_fraction) == "yolo"
    train, val = (all_boxes(target, split) for split in ("train", "val"))
    assert all(boxes == {BOX} for boxes in (train | val).values())
    return set(train), set(val)


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        (("training/images", "validation/images"), "path: .\ntrain: training/images\nval: validation/images"),
        (("images/a", "images/b"), "train: images/a\nval: images/b"),
        (("images/a", "images/b"), "path: ../datasets/in\ntrain: images/a\nval: images/b"),
        (("images/a", "images/b"), "path: /home/me/sets\ntrain: images/a\nval: images/b"),
        (("images/a", "images/b"), "train: /home/me/sets/images/a\nval: /home/me/sets/images/b"),
        (("images/a", "images/b"), "path: C:\\sets\ntrain: images\\a\nval: images\\b"),
        (("a/images", "b/images"), "train: ../a/images\nval: ../b/images"),
        (("images/a", "images/b"), "train: /home/me/train_sets/images/a\nval: /mnt/b/images/b"),
        (("a/images", "b/images"), "train: /home/me/a/images\nval: /home/me/b/images"),
        (("images/train2017", "images/val2017"), "train: images/train2017\nval: images/val2017"),
        (("images/val", "images/train"), "train: images/val\nval: images/train"),
        (("one", "two"), "train: one\nvalid: two"),
        (("one", "two"), "train: [one]\nval: [two, nowhere]"),
    ],
)
def test_the_folders_that_data_yaml_names_are_used(yolo, folders, text):
    for folder in (*folders, "test/images"):
        write(yolo, folder, labels=folder.replace("images", "labels"))
    write_yaml(yolo, text)
    assert images(yolo) == tuple({f"{name.replace('/', '_')}_{n}.jpg" for n in (0, 1)} for name in folders)


def test_listed_names_match_in_either_normal_form_of_unicode(yolo):
    write(yolo, "é", 4)
    for name, numbers in (("train", (0, 1)), ("val", (2, 3))):
        (yolo / f"{name}.txt").write_text("".join(f"e\u0301/e\u0301_{n}.jpg\n" for n in numbers), "utf-8")
    write_yaml(yolo, "train: train.txt\nval: val.txt")
    assert images(yolo) == ({"é_0.jpg", "é_1.jpg"}, {"é_2.jpg", "é_3.jpg"})


def test_named_folders_match_in_either_normal_form_of_unicode(yolo):
    for folder in ("é", "ü"):
        write(yolo, folder)
    (yolo / "data.yaml").write_text("train: e\u0301\nval: u\u0308\nnames: [cat, dog]\n", "utf-8")
    assert images(yolo) == ({"é_0.jpg", "é_1.jpg"}, {"ü_0.jpg", "ü_1.jpg"})


@pytest.mark.parametrize(
    "text",
    [
        "train: /content/x/train/images\nval: /content/x/valid/images",
        "train: /content/x/train/images\nval: /content/x/valid/images\ntest: /content/x/test/images",
        "train: C:\\x\\plates_train\\images\nval: C:\\x\\plates_val\\images",
        "train: [/content/x/train/images]\nval: [/content/x/valid/images]",
    ],
)
@pytest.mark.parametrize("val_fraction", [None, 0.5])
def test_paths_of_another_machine_that_differ_do_not_mean_the_same_folder(yolo, text, val_fraction):
    for name in ("train", "val", "test"):
        write(yolo, f"images/{name}", labels=f"labels/{name}")
    write_yaml(yolo, text)
    expected = tuple({f"images_{name}_{n}.jpg" for n in (0, 1)} for name in ("train", "val"))
    assert images(yolo, val_fraction) == expected


@pytest.mark.parametrize("prefix", ["./", "", "/home/me/set/", "C:\\set\\", "../set/"])
def test_lists_of_images_are_used(yolo, prefix):
    write(yolo, "images", 6, labels="labels")
    for name, numbers in (("train", (0, 1, 2)), ("val", (3, 4)), ("test", (5,))):
        (yolo / f"{name}.txt").write_text("".join(f"{prefix}images/images_{n}.jpg\n" for n in numbers))
    write_yaml(yolo, "train: train.txt\nval: val.txt\ntest: test.txt")
    assert images(yolo) == ({f"images_{n}.jpg" for n in (0, 1, 2)}, {f"images_{n}.jpg" for n in (3, 4)})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("val", "images_0.jpg is listed twice, in the training and the validation split."),
        ("test", "images_0.jpg is listed in the training and the test split."),
    ],
)
def test_an_image_listed_in_two_splits_is_refused(yolo, other, message):
    write(yolo, "images", 4, labels="labels")
    lists = {"train": (0, 1), "val": (2,), "test": (3,)} | {other: (0, 3)}
    for name, numbers in lists.items():
        (yolo / f"{name}.txt").write_text("".join(f"images/images_{n}.jpg\n" for n in numbers))
    write_yaml(yolo, "train: train.txt\nval: val.txt\ntest: test.txt")
    with pytest.raises(BadDataset) as error:
        images(yolo)
    assert error.value.message == message


def test_a_list_with_an_image_that_is_missing_is_refused(yolo):
    write(yolo, "images", 2, labels="labels")
    (yolo / "train.txt").write_text("images/images_0.jpg\nimages/gone.jpg\nimages/lost.jpg\n")
    write_yaml(yolo, "train: train.txt\nval: train.txt")
    with pytest.raises(BadDataset, match=r"train.txt lists images/gone.jpg, which is not in the archive, nor"):
        images(yolo)


@pytest.mark.parametrize("text", ["train: images\nval: images/val\ntest: images/test", "train: images", ""])
def test_splits_within_the_training_folder_are_not_trained_on(yolo, text):
    for name in ("a", "val", "test"):
        write(yolo, f"images/{name}", labels=f"labels/{name}")
    write_yaml(yolo, text)
    assert images(yolo) == ({"images_a_0.jpg", "images_a_1.jpg"}, {"images_val_0.jpg", "images_val_1.jpg"})


@pytest.mark.parametrize(
    "folders", [("images/train2017", "images/test2017"), ("train/images", "test/images"), ("images", "test")]
)
def test_a_validation_fraction_takes_no_image_of_the_test_split(yolo, folders):
    for folder in folders:
        write(yolo, folder, 4, labels=folder.replace("images", "labels"))
    write_yaml(yolo, "names: [cat, dog]")
    train, val = images(yolo, 0.25)
    assert (len(train), len(val)) == (3, 1)
    assert train | val == {f"{folders[0].replace('/', '_')}_{n}.jpg" for n in range(4)}


@pytest.mark.parametrize("masks", ["masks", "depth/left", "images_depth"])
def test_masks_of_the_names_of_labelled_images_are_no_background(yolo, masks):
    write(yolo, "images", 4, labels="labels")
    for image in sorted((yolo / "images").iterdir()):
        target = yolo / masks / image.with_suffix(".png").name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (96, 64)).save(target)
    write_yaml(yolo, "")
    assert [len(split) for split in images(yolo, 0.5)] == [2, 2]


@pytest.mark.parametrize("background", ["backgrounds/0.jpg", "images/more/images_0.jpg", "backgrounds/images_0.jpg"])
def test_other_images_without_labels_are_background(yolo, background):
    folder = "images" if background.startswith("images") else "photos"
    write(yolo, folder, 2, labels="labels" if folder == "images" else folder)
    path = yolo / background.replace("images_0", f"{folder}_0")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 64)).save(path)
    write_yaml(yolo, "")
    convert(yolo, yolo.with_name("converted"), 0.5)
    assert sum(len(all_boxes(yolo.with_name("converted"), split)) for split in ("train", "val")) == 3


def test_a_validation_split_equal_to_the_training_split_counts_as_none(yolo):
    write(yolo, "images/train", 4, labels="labels/train")
    write_yaml(yolo, "train: images/train\nval: images/train")
    with pytest.raises(NoValidationSplit):
        images(yolo)


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        ("[2146, 21008]", ["2146", "21008"]),
        ("[yes, no]", ["yes", "no"]),
        ("[true, null]", ["true", "null"]),
        ("{0: 1.50, 1: 007}", ["1.50", "007"]),
        ("[2020-01-02, 0x10]", ["2020-01-02", "0x10"]),
        ("\n  '1': on\n  '0': off", ["off", "on"]),
        ("[\"on\", 'off']", ["on", "off"]),
    ],
)
def test_class_names_are_the_texts_that_are_written(yolo, written, classes):
    for name in ("train", "val"):
        write(yolo, f"images/{name}", labels=f"labels/{name}")
    write_yaml(yolo, f"nc: 2\nnames: {written}\n")
    convert(yolo, yolo.with_name("converted"))
    assert [entry["name"] for entry in annotations(yolo.with_name("converted"), "train")["categories"]] == classes


@pytest.mark.parametrize("extra", ["args.yaml", "a.yml", "data.yaml", "sub/hyp.yaml"])
@pytest.mark.parametrize("name", ["mydata.yaml", "sub/z.yaml"])
def test_the_yaml_file_with_names_is_used(yolo, extra, name):
    for split in ("train", "val"):
        write(yolo, f"images/{split}", labels=f"labels/{split}")
    (yolo / "sub").mkdir()
    (yolo / extra).write_text("epochs: 3\n")
    write_yaml(yolo, "names: [cat, dog]", name)
    assert [len(split) for split in images(yolo)] == [2, 2]


@pytest.mark.parametrize("name", ["classes.txt", "labels/classes.txt", "obj.names", "labels/train/classes.txt"])
def test_a_list_of_class_names_is_used(yolo, name):
    for split in ("train", "val"):
        write(yolo, f"images/{split}", labels=f"labels/{split}")
    (yolo / name).write_text("cat\r\ndog\r\n")
    assert [len(split) for split in images(yolo)] == [2, 2]


@pytest.mark.parametrize(
    ("name", "form"), [("classes.txt", "{}\n{}\n"), ("obj.names", "{}\n{}\n"), ("data.yaml", "names: [{}, {}]\n")]
)
def test_files_that_number_the_classes_differently_are_refused(yolo, name, form):
    for split in ("train", "val"):
        write(yolo, split)
    (yolo / "train" / name).write_text(form.format("cat", "dog"))
    (yolo / "val" / name).write_text(form.format("dog", "cat"))
    with pytest.raises(BadDataset) as error:
        images(yolo)
    assert error.value.message == f"Class 0 is cat in train/{name}, but dog in val/{name}."
    assert "keep one of these files" in error.value.hint


@pytest.mark.parametrize("shorter", ["train", "val"])
def test_of_class_lists_that_agree_the_longest_is_used(yolo, shorter):
    for split in ("train", "val"):
        write(yolo, split)
        (yolo / split / "classes.txt").write_text("cat\n" if split == shorter else "cat\ndog\n\n")
    assert [len(split) for split in images(yolo)] == [2, 2]


@pytest.mark.parametrize("other", ["", "cat\n"])
def test_an_unused_class_list_of_another_name_is_not_compared(yolo, other):
    for split in ("train", "val"):
        write(yolo, f"images/{split}", labels=f"labels/{split}")
    (yolo / "classes.txt").write_text("cat\ndog\n")
    (yolo / "coco.names").write_text("person\n")
    (yolo / "labels/classes.txt").write_text(other)
    assert [len(split) for split in images(yolo)] == [2, 2]


@pytest.mark.parametrize(("text", "line"), [("cat\n\ndog\n", 2), ("\ncat\ndog", 1), ("cat\ndog\n \t\nbird\n\n", 3)])
def test_a_blank_line_between_class_names_is_refused(yolo, text, line):
    write(yolo, "images", labels="labels")
    (yolo / "classes.txt").write_text(text)
    with pytest.raises(BadDataset) as error:
        images(yolo, 0.5)
    assert error.value.message.startswith(f"classes.txt, line {line}, is blank")
    assert "Remove the line" in error.value.hint


def test_blank_lines_at_the_end_of_a_class_list_are_ignored(yolo):
    write(yolo, "images", 4, labels="labels")
    (yolo / "classes.txt").write_text("cat\ndog\n\n  \n")
    assert [len(split) for split in images(yolo, 0.5)] == [2, 2]


def test_labels_without_class_names_are_refused_with_the_next_step(yolo):
    write(yolo, "images", labels="labels")
    with pytest.raises(BadDataset) as error:
        images(yolo, 0.5)
    assert "no class names" in error.value.message
    assert "Add classes.txt" in error.value.hint


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ("[2, 2]", "1 0.5 0.5 0.25 0.25 0.45 0.4 0.55 0.6"),
        ("[2, 3]", "1 0.5 0.5 0.25 0.25 0.45 0.4 2 0.55 0.6 1"),
        ("[1, 2]", "1 0.5 0.5 0.25 0.25 0 0"),
        ("[3, 2]", "1.0 0.5 0.5 0.25 0.25 0.1 0.1 0.9 0.9 -1 -1"),
        ("[17, 3]", "1 0.5 0.5 0.25 0.25" + " 0.3 0.4 2" * 17),
        ("[2, 2]", "1 0.5 0.5 0.25 0.25"),
    ],
)
def test_the_box_of_a_pose_label_is_used(yolo, shape, line):
    for split in ("train", "val"):
        write(yolo, f"images/{split}", label=line, labels=f"labels/{split}")
    write_yaml(yolo, f"kpt_shape: {shape}\nnames: [cat, dog]\n")
    assert [len(split) for split in images(yolo)] == [2, 2]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("[2, 3]", r"line 1: 9 fields; with this `kpt_shape`, 11 are expected"),
        ("[2]", "`kpt_shape` must be two numbers"),
        ("17", "`kpt_shape` must be two numbers"),
        ("[0, 2]", "`kpt_shape` must be two numbers"),
    ],
)
def test_keypoints_that_do_not_fit_are_refused(yolo, shape, message):
    for split in ("train", "val"):
        write(yolo, f"images/{split}", label="1 0.5 0.5 0.2 0.4 0.45 0.4 0.55 0.6", labels=f"labels/{split}")
    write_yaml(yolo, f"kpt_shape: {shape}\nnames: [cat, dog]\n")
    with pytest.raises(BadDataset, match=message):
        images(yolo)


@pytest.mark.parametrize("line", ["0 0.5 0.5 -0.005 0.25", "0 0.5 0.5 0.25 -0.005", "0 1.008 0.5 0.004 0.25"])
def test_a_box_without_extent_in_the_image_is_reported_as_empty(yolo, line):
    write(yolo, "train", label=f"{LABEL}{line}\n")
    write(yolo, "val")
    write_yaml(yolo, "train: train\nval: val")
    target = yolo.with_name("converted")
    convert(yolo, target)
    issues = check_split(target / "train", target / "annotations/instances_train.json").issues
    assert {issue.code for issue in issues} == {"box_empty"}


def test_labels_of_cvat_are_read(yolo):
    write(yolo, "obj_Train_data")
    write(yolo, "obj_Validation_data")
    (yolo / "obj.names").write_text("cat\ndog\n")
    lines = (
        "classes = 2\ntrain = data/Train.txt\nvalid = data/Validation.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    (yolo / "obj.data").write_text(lines)
    for name in ("Train", "Validation"):
        (yolo / f"{name}.txt").write_text("".join(f"data/obj_{name}_data/obj_{name}_data_{n}.jpg\n" for n in (0, 1)))
    assert images(yolo) == tuple({f"obj_{name}_data_{n}.jpg" for n in (0, 1)} for name in ("Train", "Validation"))


@pytest.mark.parametrize("labels", [None, "labels"])
def test_a_flat_folder_of_labelimg_is_read(yolo, labels):
    write(yolo, "." if labels is None else "images", 4, labels=labels)
    (yolo / (labels or ".") / "classes.txt").write_text("cat\ndog\n")
    (yolo / "README.txt").write_text("hello")
    assert [len(split) for split in images(yolo, 0.25)] == [3, 1]
