import json

import pytest

BASE = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
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
RAW = [
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
WRONG = [None, True, 0, -1, 1.5, 10**30, "", "x", [], [[]], {}, {"a": {"b": {}}}]
FIELDS = ["name", "kind", "method", "dataset", "student", "schedule", "baseline", "resources", "tags", "metadata"]


def is_a_refusal(response):
    assert 400 <= response.status_code < 500, response.text
    assert response.headers["content-type"] == "application/problem+json"
    said = response.text
    assert "Traceback" not in said
    for secret in ("/etc/", "/tmp", "api/", "site-packages", "SELECT", "sqlite", "DROP TABLE", "<script", "id_rsa"):
        assert secret not in said
    assert len(said) < 20_000


@pytest.mark.parametrize("path", ["/jobs", "/datasets", "/detectors"])
def test_a_body_that_is_no_request_is_refused(refusing, path):
    for body in RAW:
        is_a_refusal(refusing.client.post(path, content=body, headers={"Content-Type": "application/json"}))


def test_values_of_wrong_types_never_break_it(service, shapes):
    for field in FIELDS:
        for value in WRONG:
            response = service.client.post("/jobs", json=BASE | {field: value})
            if response.status_code != 201:
                is_a_refusal(response)


@pytest.mark.parametrize("text", TRAVERSALS, ids=range(len(TRAVERSALS)))
def test_strings_that_would_lead_elsewhere_lead_nowhere(service, shapes, text):
    student = {"architecture": "gfl"}
    half = {"images": text, "annotations": text}
    description = {"name": "x", "description": student, "weights": "teacher.pth"}
    for path, body in [
        ("/jobs", BASE | {"name": text}),
        ("/jobs", BASE | {"dataset": text}),
        ("/jobs", BASE | {"student": {"config": text}}),
        ("/jobs", BASE | {"student": student | {"init": text}}),
        ("/jobs", BASE | {"student": student | {"init": {"weights": text}}}),
        ("/jobs", BASE | {"student": student | {"init": {"detector": text}}}),
        ("/jobs", BASE | {"kind": "evaluate", "student": {"job": text}}),
        ("/jobs", BASE | {"kind": "evaluate", "student": {"detector": text}}),
        ("/jobs", BASE | {text: 1}),
        ("/datasets", {"name": text}),
        ("/datasets", {"name": "x", "train": half}),
        ("/datasets", {"name": "x", "val": half}),
        ("/detectors", description | {"name": text}),
        ("/detectors", description | {"weights": text}),
        ("/detectors", description | {"description": {"config": text}}),
        ("/detectors", {"name": "x", "job": text}),
    ]:
        is_a_refusal(service.client.post(path, json=body))


def test_free_text_is_kept_as_it_is(service, shapes):
    for text in TRAVERSALS:
        short = text[:64].replace("\0", "\\u0000")
        job = service.submit(BASE, tags=[short], metadata={"note": short})
        assert job["spec"]["tags"] == [short]
        assert [found["id"] for found in service.get("/jobs", params={"tag": short})["data"]] == [job["id"]]


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
def test_a_cursor_of_ones_own_making_is_refused(service, shapes, cursor):
    job = service.submit()["id"]
    for path in ("/jobs", "/datasets", "/detectors"):
        is_a_refusal(service.client.get(path, params={"cursor": cursor}))
    if not cursor.isdigit() or len(cursor) > 15:
        is_a_refusal(service.client.get(f"/jobs/{job}/events", params={"cursor": cursor}))


def test_queries_beyond_all_bounds_are_refused(service, shapes):
    job = service.submit()["id"]
    for query in [
        f"/jobs/{job}/metrics?since={10**30}",
        f"/jobs/{job}/metrics?max_points=1",
        f"/jobs/{job}/metrics?x=value",
        f"/jobs/{job}/logs?tail=0",
        "/jobs?created_after=0001-01-01T00:00:00",
        "/jobs?tag=" + "x" * 65,
    ]:
        is_a_refusal(service.client.get(query))
    for fine in ("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-12:00"):
        assert service.client.get(f"/jobs?created_after={fine}&created_before={fine}").status_code == 200


@pytest.mark.parametrize("key", ["", "a b", "\u00e9", "x" * 256, "a\tb"])
def test_an_idempotency_key_is_plain_text(service, shapes, key):
    response = service.client.post("/jobs", json=BASE, headers={"Idempotency-Key": key.encode()})
    is_a_refusal(response)


@pytest.mark.parametrize("length", [None, "1048577", "9" * 50])
def test_a_body_of_more_than_a_mebibyte_is_413(service, length):
    headers = {"Content-Type": "application/json"} | ({"Content-Length": length} if length else {})

    def body():
        yield from [b" " * 65_536] * 17

    response = service.client.post("/jobs", content=body(), headers=headers)
    service.refused(response, 413, "body_too_large")


def test_a_body_that_is_not_said_to_be_json_is_415(refusing):
    response = refusing.client.post("/jobs", content=json.dumps(BASE), headers={"Content-Type": "text/plain"})
    refusing.refused(response, 415, "unsupported_media_type")
