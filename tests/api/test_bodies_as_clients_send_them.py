"""JSON bodies as clients encode them, after public reports: read, or refused with what to send instead."""

import codecs
import gzip
import json
from typing import Any

import pytest

SPEC = {"kind": "train", "dataset": "none", "student": {"architecture": "gfl", "init": "random"}}


def test_a_byte_order_mark_before_the_body_is_ignored(shared_service: Any) -> None:
    """OCA/rest-framework #194, Badgerati/Pode #1604: PowerShell and Windows editors write one."""
    body = codecs.BOM_UTF8 + json.dumps(SPEC).encode()
    response = shared_service.client.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    shared_service.assert_problem(response, 422, "dataset_not_found")


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "zstd"])
def test_a_compressed_body_is_refused_by_its_encoding(shared_service: Any, encoding: str) -> None:
    """fastapi/fastapi #2992, SeldonIO/MLServer #931: a parser's error about the compressed bytes."""
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    response = shared_service.client.post("/jobs", content=gzip.compress(json.dumps(SPEC).encode()), headers=headers)
    problem = shared_service.assert_problem(response, 415, "unsupported_media_type")
    assert encoding.lower() in response.text and "uncompressed" in response.text, problem


def test_an_identity_encoding_is_read(shared_service: Any) -> None:
    response = shared_service.client.post("/jobs", json=SPEC, headers={"Content-Encoding": "identity"})
    shared_service.assert_problem(response, 422, "dataset_not_found")
