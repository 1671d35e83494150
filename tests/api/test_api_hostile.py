"""Malformed and hostile requests get a 4xx problem document without internals."""

import json

import pytest

SPEC = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
TRAVERSALS = [
    "../../etc/passwd",
    "/etc/passwd",
    "~/.ssh/id_rsa",
    "a/../../b",
    "..\\..\\windows",
    "file:///etc/passwd",
    "http://127.0.0.1:1/x",
    "a\u0000b",
    "%2e%2e%2fetc",
    "....//....//etc",
    "x" * 300,
    "\u00e9" * 200,
    "a\r\nSet-Cookie: x",
    "'; DROP TABLE jobs; --",
    "<script>alert(1)</script>",
    "{{$HOME:x}}",
    "\u202eexe",
]
RAW_BODIES = [
    b"",
    b"null",
    b"[]",
    b"3",
    b'"text"',
    b"{",
    b"{}}",
    b"NaN",
    b"\xff\xfe{}",
    b"\x00",
    b"[" * 100_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"dataset": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"metadata": {"\\udfff": "x"}}',
    b'{"tags": ["\\ud83d"]}',
    b'{"dataset": "x", "dataset": "y"}',
    b'{"__proto__": {}}',
    b"-" * 1000,
    b"1" * 5_000,
    b'{"max_invalid_fraction": NaN}',
    b'{"max_invalid_fraction": Infinity}',
    b'{"schedule": {"max_grad_norm": 1e999}}',
    b'{"schedule": {"max_grad_norm": -Infinity}}',
    b'{"schedule": {"seed": ' + b"9" * 4_000 + b"}}",
    b'{"schedule": {"flip_prob": ' + b"9" * 400 + b"}}",
    b'{"schedule": {"max_steps": 1e308}}',
    b'{"x": "' + b"a" * 500_000 + b'"}',
    b"{" + b",".join(b'"k%d": 1' % n for n in range(20_000)) + b"}",
    b'{"tags": [' + b",".join([b'"t"'] * 50_000) + b"]}",
]
WRONG_VALUES = [None, True, 0, -1, 1.5, 10**30, "", "x", [], [[]], {}, {"a": {"b": {}}}]
FIELDS = ["name", "kind", "method", "dataset", "student", "schedule", "baseline", "resources", "tags", "metadata"]


def assert_rejected(response):
    """Assert a 4xx problem document that reveals no internals and does not repeat the input."""
    assert 400 <= response.status_code < 500, response.text
    assert response.headers["content-type"] == "application/problem+json"
    text = response.text
    assert "Traceback" not in text
    for secret in ("/etc/", "/tmp", "api/", "site-packages", "SELECT", "sqlite", "DROP TABLE", "<script", "id_rsa"):
        assert secret not in text
    assert len(text) < 20_000


@pytest.mark.parametrize("path", ["/jobs", "/datasets", "/detectors"])
def test_a_body_that_is_not_a_valid_request_is_rejected(shared_service, path):
    for body in RAW_BODIES:
        assert_rejected(shared_service.client.post(path, content=body, headers={"Content-Type": "application/json"}))


def test_values_of_wrong_types_are_accepted_or_rejected(service, shapes):
    for field in FIELDS:
        for value in WRONG_VALUES:
            response = service.client.post("/jobs", json=SPEC | {field: value})
            if response.status_code != 201:
                assert_rejected(response)


@pytest.mark.parametrize("text", TRAVERSALS, ids=range(len(TRAVERSALS)))
def test_path_traversal_and_injection_strings_are_rejected(service, shapes, text):
    student = {"architecture": "gfl"}
    split = {"images": text, "annotations": text}
    description = {"name": "x", "description": student, "weights": "teacher.pth"}
    for path, body in [
        ("/jobs", SPEC | {"name": text}),
        ("/jobs", SPEC | {"dataset": text}),
        ("/jobs", SPEC | {"student": {"config": text}}),
        ("/jobs", SPEC | {"student": student | {"init": text}}),
        ("/jobs", SPEC | {"student": student | {"init": {"weights": text}}}),
        ("/jobs", SPEC | {"student": student | {"init": {"detector": text}}}),
        ("/jobs", SPEC | {"kind": "evaluate", "student": {"job": text}}),
        ("/jobs", SPEC | {"kind": "evaluate", "student": {"detector": text}}),
        ("/jobs", SPEC | {text: 1}),
        ("/datasets", {"name": text}),
        ("/datasets", {"name": "x", "train": split}),
        ("/datasets", {"name": "x", "val": split}),
        ("/detectors", description | {"name": text}),
        ("/detectors", description | {"weights": text}),
        ("/detectors", description | {"description": {"config": text}}),
        ("/detectors", {"name": "x", "job": text}),
    ]:
        assert_rejected(service.client.post(path, json=body))


def test_free_text_is_stored_unchanged(service, shapes):
    for text in TRAVERSALS:
        short = text[:64].replace("\0", "\\u0000")
        job = service.submit(SPEC, tags=[short], metadata={"note": short})
        assert job["spec"]["tags"] == [short]
        assert [row["id"] for row in service.get("/jobs", params={"tag": short})["data"]] == [job["id"]]


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "AAAA",
        "W10=",
        "WzEsMl0=",
        "bnVsbA==",
        "WyJhIiwiYiJd",
        "\ud800".encode("utf-8", "surrogatepass").hex(),
        "9" * 30,
        "-1",
        "1e3",
    ],
)
def test_a_forged_cursor_is_rejected(service, shapes, cursor):
    job = service.submit()["id"]
    for path in ("/jobs", "/datasets", "/detectors"):
        assert_rejected(service.client.get(path, params={"cursor": cursor}))
    if not cursor.isdigit() or len(cursor) > 15:
        assert_rejected(service.client.get(f"/jobs/{job}/events", params={"cursor": cursor}))


def test_query_parameters_out_of_range_are_rejected(service, shapes):
    job = service.submit()["id"]
    for query in [
        f"/jobs/{job}/metrics?since={10**30}",
        f"/jobs/{job}/metrics?max_points=1",
        f"/jobs/{job}/metrics?x=value",
        f"/jobs/{job}/logs?tail=0",
        "/jobs?created_after=0001-01-01T00:00:00",
        "/jobs?tag=" + "x" * 65,
    ]:
        assert_rejected(service.client.get(query))
    for time in ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-12:00"):
        assert service.client.get(f"/jobs?created_after={time}&created_before={time}").status_code == 200


@pytest.mark.parametrize("key", ["", "a b", "\u00e9", "x" * 256, "a\tb"])
def test_an_idempotency_key_that_is_not_plain_text_is_rejected(service, shapes, key):
    response = service.client.post("/jobs", json=SPEC, headers={"Idempotency-Key": key.encode()})
    assert_rejected(response)


@pytest.mark.parametrize("length", [None, "1048577", "9" * 50])
def test_a_body_over_one_mebibyte_is_413(service, length):
    headers = {"Content-Type": "application/json"} | ({"Content-Length": length} if length else {})

    def body():
        yield from [b" " * 65_536] * 17

    response = service.client.post("/jobs", content=body(), headers=headers)
    service.assert_problem(response, 413, "body_too_large")


def test_a_body_without_the_json_content_type_is_415(shared_service):
    response = shared_service.client.post("/jobs", content=json.dumps(SPEC), headers={"Content-Type": "text/plain"})
    shared_service.assert_problem(response, 415, "unsupported_media_type")
