"""Malicious annotation files: the result is a report or a BadDataset, and it can be sent as JSON."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from frs.dataset.check import check_split
from frs.errors import BadDataset

VALID = {
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
FIELDS = [(key, name) for key, entries in VALID.items() for name in entries[0]]

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
    json.dumps(VALID).encode("utf-16"),
    json.dumps(VALID).encode()[:-20],
    b'{"a": "\xc3\x28"}',
]


def check_content(tiny: Any, content: bytes) -> str:
    """Return the response text; anything but a report or a BadDataset fails the test."""
    (tiny.folder / "instances_train.json").write_bytes(content)
    try:
        report = check_split(tiny.folder / "train", tiny.folder / "instances_train.json")
    except BadDataset as error:
        assert "instances_train.json" in error.message
        assert len(error.message) < 500
        text = error.message
    else:
        assert all(len(issue.message) < 500 for issue in report.issues)
        assert all(issue.message.isprintable() for issue in report.issues)
        text = report.model_dump_json()
    text.encode("utf-8")
    assert str(tiny.folder) not in text
    return text


@pytest.mark.parametrize("content", BROKEN_FILES, ids=lambda content: repr(content[:24]))
def test_the_message_on_a_broken_file_names_it(tiny, content):
    assert check_content(tiny, content).startswith("instances_train.json ")


@pytest.mark.parametrize(("key", "name"), FIELDS)
def test_any_field_may_hold_any_value(tiny, key, name):
    for value in HOSTILE_VALUES:
        document = json.loads(json.dumps(VALID))
        document[key][0][name] = value
        check_content(tiny, json.dumps(document).encode())


@pytest.mark.parametrize(("key", "name"), FIELDS)
def test_any_field_may_be_missing(tiny, key, name):
    document = json.loads(json.dumps(VALID))
    del document[key][0][name]
    check_content(tiny, json.dumps(document).encode())


@pytest.mark.parametrize("key", list(VALID))
def test_any_entry_and_any_list_may_be_any_value(tiny, key):
    for value in HOSTILE_VALUES:
        check_content(tiny, json.dumps(VALID | {key: [value]}).encode())
        check_content(tiny, json.dumps(VALID | {key: value}).encode())


def _swap_lists(document: dict[str, Any]) -> None:
    document["images"], document["annotations"] = document["annotations"], document["images"]


def _use_huge_numbers(document: dict[str, Any]) -> None:
    document["annotations"][0]["bbox"] = [int("1" * 4000)] * 4


def _nest_outlines(document: dict[str, Any]) -> None:
    document["annotations"][0]["segmentation"] = {"segmentation": {"counts": NESTED}}


def _repeat_entries(document: dict[str, Any]) -> None:
    for key in document:
        document[key] = document[key] * 1000


def _add_too_many_classes(document: dict[str, Any]) -> None:
    document["categories"] = [{"id": n, "name": str(n)} for n in range(20_001)]


@pytest.mark.parametrize(
    "mutate", [_swap_lists, _use_huge_numbers, _nest_outlines, _repeat_entries, _add_too_many_classes]
)
def test_a_mutated_document_gives_a_report_or_a_bad_dataset(tiny, mutate: Callable[[dict[str, Any]], None]):
    document = json.loads(json.dumps(VALID))
    mutate(document)
    check_content(tiny, json.dumps(document).encode())


def test_a_file_truncated_anywhere_gives_a_report_or_a_bad_dataset(tiny):
    content = json.dumps(VALID).encode()
    for end in range(0, len(content), 7):
        check_content(tiny, content[:end])


def test_a_thousand_duplicates_are_all_counted_and_some_listed(tiny):
    document = {key: entries * 1000 for key, entries in VALID.items()}
    report = json.loads(check_content(tiny, json.dumps(document).encode()))
    assert len(report["issues"]) == 200
    assert report["issue_counts"] == {
        "category_duplicate": 999,
        "image_id_duplicate": 999,
        "annotation_id_duplicate": 999,
    }


@pytest.mark.parametrize("name", ["nothing.json", "", "train"])
def test_a_path_without_a_file_is_a_bad_dataset(tiny, name):
    with pytest.raises(BadDataset, match="no annotation file"):
        check_split(tiny.folder / "train", tiny.folder / name)


def test_control_characters_in_messages_are_escaped(tiny):
    text = check_content(tiny, json.dumps(VALID | {"annotations": [{"id": 1, "image_id": "\x1b[31m\r\n"}]}).encode())
    assert "\\x1b" in json.loads(text)["issues"][0]["message"]
