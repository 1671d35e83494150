"""Annotation files setup to do harm: the answer is a report or a BadDataset, and it can be sent as JSON."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from frs.dataset.check import check_split
from frs.errors import BadDataset

GOOD = {
    "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "cat"}],
}
DEEP = "[" * 100_000 + "]" * 100_000
NESTED = json.loads("[" * 900 + "]" * 900)
HOSTILE_VALUES: list[Any] = [
    None,
    True,
    "1",
    "",
    "\ud800",
    "\x1b[31m\r\n",
    "x" * 100_000,
    1.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    -1,
    0,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    [],
    [1, 2, 3, 4],
    ["1", 2, 3, 4],
    [float("nan"), 1, 1, 1],
    [10**400, 1, 1, 1],
    [1e308, 1e308, 1e308, 1e308],
    {},
    {"id": 1},
    [[]],
    NESTED,
]
FIELDS = [(key, name) for key, entries in GOOD.items() for name in entries[0]]

BROKEN_FILES: list[bytes] = [
    b"",
    b"\0" * 100,
    b"\xff\xfe{\0}\0",
    b'{"images": [',
    b"null",
    b"[]",
    b'"text"',
    b"1e999",
    b"NaN",
    b"{}",
    DEEP.encode(),
    b'{"images":' * 50_000,
    b"9" * 10_000,
    b'{"images": {}, "annotations": [], "categories": []}',
    b'{"images": [], "annotations": [], "categories": []}',
    b'{"images": null, "annotations": null, "categories": null}',
    json.dumps(GOOD).encode("utf-16"),
    json.dumps(GOOD).encode()[:-20],
    b'{"a": "\xc3\x28"}',
]


def answer(tiny: Any, content: bytes) -> str:
    """What a client would be told. Anything but a report or a BadDataset fails the test."""
    (tiny.folder / "instances_train.json").write_bytes(content)
    try:
        report = check_split(tiny.folder / "train", tiny.folder / "instances_train.json")
    except BadDataset as refusal:
        assert "instances_train.json" in refusal.message
        assert len(refusal.message) < 500
        said = refusal.message
    else:
        assert all(len(issue.message) < 500 for issue in report.issues)
        assert all(issue.message.isprintable() for issue in report.issues)
        said = report.model_dump_json()
    said.encode("utf-8")
    assert str(tiny.folder) not in said
    return said


@pytest.mark.parametrize("content", BROKEN_FILES, ids=lambda content: repr(content[:24]))
def test_a_broken_file_is_a_bad_dataset_by_name(tiny, content):
    assert answer(tiny, content).startswith("instances_train.json ")


@pytest.mark.parametrize(("key", "name"), FIELDS)
def test_any_field_may_hold_anything(tiny, key, name):
    for value in HOSTILE_VALUES:
        document = json.loads(json.dumps(GOOD))
        document[key][0][name] = value
        answer(tiny, json.dumps(document).encode())


@pytest.mark.parametrize(("key", "name"), FIELDS)
def test_any_field_may_be_absent(tiny, key, name):
    document = json.loads(json.dumps(GOOD))
    del document[key][0][name]
    answer(tiny, json.dumps(document).encode())


@pytest.mark.parametrize("key", list(GOOD))
def test_any_entry_and_any_list_may_be_anything(tiny, key):
    for value in HOSTILE_VALUES:
        answer(tiny, json.dumps(GOOD | {key: [value]}).encode())
        answer(tiny, json.dumps(GOOD | {key: value}).encode())


def _swapped(document: dict[str, Any]) -> None:
    document["images"], document["annotations"] = document["annotations"], document["images"]


def _million_digits(document: dict[str, Any]) -> None:
    document["annotations"][0]["bbox"] = [int("1" * 4000)] * 4


def _outline_bomb(document: dict[str, Any]) -> None:
    document["annotations"][0]["segmentation"] = {"segmentation": {"counts": NESTED}}


def _same_again(document: dict[str, Any]) -> None:
    for key in document:
        document[key] = document[key] * 1000


def _too_many_classes(document: dict[str, Any]) -> None:
    document["categories"] = [{"id": n, "name": str(n)} for n in range(20_001)]


@pytest.mark.parametrize("mutilate", [_swapped, _million_digits, _outline_bomb, _same_again, _too_many_classes])
def test_a_mutilated_whole_is_answered(tiny, mutilate: Callable[[dict[str, Any]], None]):
    document = json.loads(json.dumps(GOOD))
    mutilate(document)
    answer(tiny, json.dumps(document).encode())


def test_every_cut_of_a_file_is_answered(tiny):
    content = json.dumps(GOOD).encode()
    for end in range(0, len(content), 7):
        answer(tiny, content[:end])


def test_a_thousand_repeats_list_a_few_and_count_all(tiny):
    document = {key: entries * 1000 for key, entries in GOOD.items()}
    said = json.loads(answer(tiny, json.dumps(document).encode()))
    assert len(said["issues"]) == 200
    assert said["issue_counts"] == {
        "category_duplicate": 999,
        "image_id_duplicate": 999,
        "annotation_id_duplicate": 999,
    }


@pytest.mark.parametrize("name", ["nothing.json", "", "train"])
def test_what_is_no_file_is_a_bad_dataset(tiny, name):
    with pytest.raises(BadDataset, match="no annotation file"):
        check_split(tiny.folder / "train", tiny.folder / name)


def test_control_characters_do_not_reach_a_message(tiny):
    said = answer(tiny, json.dumps(GOOD | {"annotations": [{"id": 1, "image_id": "\x1b[31m\r\n"}]}).encode())
    assert "\\x1b" in json.loads(said)["issues"][0]["message"]
