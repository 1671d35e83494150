import os
from pathlib import Path

import pytest

from frs.dataset.check import check_pair, check_split
from frs.errors import BadDataset, ClassMismatch


def test_a_valid_data_set_has_no_issues(tiny):
    tiny.image("sub/b.jpg", (100, 200))
    tiny.box(10, 10, 50, 50, category_id=2, image_id=2)
    tiny.box(0, 0, 100, 200, category_id=2, image_id=2, iscrowd=1)
    tiny.image("c.png")
    report = tiny.check()
    assert (report.issues, report.issue_counts, report.invalid_images, report.invalid_fraction) == ([], {}, 0, 0)
    assert report.accepted()
    assert report.depth == "decoded"
    assert report.counts.model_dump() == {"images": 3, "images_without_boxes": 1, "boxes": 3, "crowd": 1}
    assert [row.model_dump() for row in report.classes] == [
        {"id": 1, "name": "cat", "boxes": 1, "images": 1},
        {"id": 2, "name": "dog", "boxes": 2, "images": 1},
    ]
    assert report.box_sizes.model_dump() == {"small": 1, "medium": 1, "large": 1}
    assert report.image_sizes.model_dump() == {
        "min_width": 40,
        "max_width": 100,
        "min_height": 30,
        "max_height": 200,
    }


@pytest.mark.parametrize(
    ("bbox", "code", "message"),
    [
        ((10, 20, 0, 5), "box_empty", "a.png: box 2 [10, 20, 0, 5] is empty."),
        ((10, 20, 5, -1), "box_empty", "a.png: box 2 [10, 20, 5, -1] is empty."),
        ((30, 2, 11.5, 5), "box_outside", "a.png: box 2 [30, 2, 11.5, 5] extends beyond the image, which is 40x30."),
        ((-1.5, 2, 5, 5), "box_outside", "a.png: box 2 [-1.5, 2, 5, 5] extends beyond the image, which is 40x30."),
        (
            (1e308, 2, 1e308, 5),
            "box_outside",
            "a.png: box 2 [1e+308, 2, 1e+308, 5] extends beyond the image, which is 40x30.",
        ),
        ((1, 2, 3), "box_invalid", "a.png: box 2 has `bbox` [1, 2, 3], which is not four finite numbers."),
        ((1, 2, 3, True), "box_invalid", "a.png: box 2 has `bbox` [1, 2, 3, True], which is not four finite numbers."),
    ],
)
def test_an_invalid_box_is_reported_with_file_and_id(tiny, bbox, code, message):
    tiny.box(*bbox)
    issue = tiny.only_issue()
    assert (issue.code, issue.message) == (code, message)
    assert (issue.file, issue.image_id, issue.annotation_id) == ("a.png", 1, 2)


def test_a_box_may_extend_one_pixel_beyond_its_image(tiny):
    tiny.box(-1, -1, 42, 32)
    assert tiny.check().issues == []


@pytest.mark.parametrize("change", [{"area": "12"}, {"area": -1}, {"iscrowd": 2}, {"iscrowd": "yes"}])
def test_an_invalid_area_or_crowd_flag_is_an_issue(tiny, change):
    tiny.box(**change)
    assert tiny.only_issue().code == "box_invalid"


@pytest.mark.parametrize("category", [3, "3", "one", None, 1.5])
def test_an_unknown_category_is_an_issue(tiny, category):
    tiny.box(category_id=category)
    assert tiny.only_issue().code == "category_unknown"


def test_a_box_of_an_unknown_image_is_an_issue(tiny):
    tiny.box(image_id=99)
    issue = tiny.only_issue()
    assert (issue.code, issue.annotation_id) == ("image_unknown", 2)
    assert "99" in issue.message


def test_a_box_without_an_id_is_an_issue_of_its_image(tiny):
    tiny.box(id=None)
    issue = tiny.only_issue()
    assert (issue.code, issue.image_id) == ("annotation_invalid", 1)


def test_a_duplicate_box_id_is_an_issue(tiny):
    tiny.box(id=1)
    issue = tiny.only_issue()
    assert (issue.code, issue.annotation_id) == ("annotation_id_duplicate", 1)


def test_a_duplicate_image_id_is_an_issue(tiny):
    tiny.image("b.png", id=1)
    issue = tiny.only_issue()
    assert (issue.code, issue.image_id, issue.file) == ("image_id_duplicate", 1, "b.png")


@pytest.mark.parametrize("name", ["a.png", "./a.png", "sub/../a.png"])
def test_a_file_listed_twice_is_an_issue(tiny, name):
    (tiny.folder / "train" / "sub").mkdir()
    tiny.image(name)
    issue = tiny.only_issue()
    assert (issue.code, issue.image_id) == ("image_listed_twice", 2)


@pytest.mark.parametrize("change", [{"width": 0}, {"height": "30"}, {"file_name": None}, {"file_name": "a\0b"}])
def test_an_invalid_image_entry_is_an_issue_and_its_boxes_are_not(tiny, change):
    tiny.image("b.png", **change)
    tiny.box(image_id=2)
    issue = tiny.only_issue()
    assert (issue.code, issue.image_id) == ("image_invalid", 2)


def test_a_data_set_without_boxes_is_an_issue(tiny):
    tiny.annotations = []
    report = tiny.check()
    assert [issue.code for issue in report.issues] == ["boxes_missing"]
    assert not report.accepted(0.5)


@pytest.mark.parametrize("category", [{"id": 2, "name": "cow"}, {"id": 3, "name": "dog"}])
def test_a_duplicate_category_is_never_accepted(tiny, category):
    tiny.categories.append(category)
    assert tiny.only_issue().code == "category_duplicate"
    assert not tiny.check().accepted(0.99)


def test_invalid_images_are_counted_once_and_listed_by_id(tiny):
    for number in range(2, 5):
        tiny.image(f"{number}.png")
    tiny.box(0, 0, 0, 0, image_id=3)
    tiny.box(90, 90, 5, 5, image_id=3)
    (tiny.folder / "train" / "4.png").unlink()
    report = tiny.check()
    assert (report.invalid_images, report.invalid_fraction, report.invalid_image_ids) == (2, 0.5, [3, 4])


@pytest.mark.parametrize(("fraction", "accepted"), [(0, False), (0.2, False), (0.25, True), (0.5, True)])
def test_invalid_images_are_accepted_up_to_the_maximum_fraction(tiny, fraction, accepted):
    for number in range(2, 5):
        tiny.image(f"{number}.png")
    tiny.box(0, 0, 0, 0)
    assert tiny.check().accepted(fraction) is accepted


def test_an_issue_without_an_image_is_accepted_only_with_a_maximum_fraction(tiny):
    tiny.box(image_id=99)
    assert not tiny.check().accepted(0)
    assert tiny.check().accepted(0.1)


def test_a_limited_list_holds_an_issue_of_every_code(tiny):
    for _ in range(30):
        tiny.box(0, 0, 0, 0)
    tiny.box(99, 0, 5, 5)
    tiny.image("gone.png").unlink()
    report = tiny.check(limit=5)
    codes = [issue.code for issue in report.issues]
    assert sorted(codes) == ["box_empty"] * 3 + ["box_outside", "image_missing"]
    assert report.issue_counts == {"box_empty": 30, "box_outside": 1, "image_missing": 1}


def test_progress_ends_at_the_number_of_images(tiny):
    tiny.image("b.png")
    calls = []
    tiny.check(progress=lambda done, images: calls.append((done, images)))
    assert calls[-1] == (2, 2)


def test_image_files_are_not_read_without_read_images(tiny):
    (tiny.folder / "train" / "a.png").unlink()
    report = tiny.check(read_images=False)
    assert (report.issues, report.depth) == ([], "annotations")


@pytest.mark.parametrize("name", ["nowhere", "instances_train.json", "x" * 300, "a\0b"])
def test_a_missing_images_folder_is_a_bad_dataset(tiny, name):
    with pytest.raises(BadDataset, match="There is no images folder"):
        check_split(tiny.folder / name, tiny.file)


def test_both_splits_must_have_the_same_classes(tiny):
    train = tiny.check()
    check_pair(train, train)
    tiny.categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    with pytest.raises(ClassMismatch, match="another order"):
        check_pair(train, tiny.check())


def test_category_ids_may_differ_between_splits(tiny):
    train = tiny.check()
    tiny.categories = [{"id": 10, "name": "cat"}, {"id": 20, "name": "dog"}]
    tiny.annotations[0]["category_id"] = 10
    check_pair(train, tiny.check())


@pytest.mark.skipif("FRS_TEST_DATA" not in os.environ, reason="FRS_TEST_DATA does not name a folder with real images")
@pytest.mark.parametrize(("split", "images"), [("train", 205), ("val", 87), ("test", 72)])
def test_real_photographs_have_no_issues(split, images):
    folder = Path(os.environ["FRS_TEST_DATA"]) / "bccd"
    report = check_split(folder / split, folder / "annotations" / f"instances_{split}.json")
    assert report.issues == []
    assert report.class_names == ("RBC", "WBC", "Platelets")
    assert report.counts.images == images
