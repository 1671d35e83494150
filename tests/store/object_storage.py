"""Fixtures for tests on S3-compatible object storage: a server in this process, and a new bucket for each test."""

import logging
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import httpx2
import pytest
from moto.server import ThreadedMotoServer

SECRET = "canary-secret-access-key"
PREFIX = "some/prefix"


@dataclass(frozen=True)
class Bucket:
    """A bucket of the test server, and requests that bypass the code under test."""

    endpoint: str
    name: str

    @property
    def url(self) -> str:
        """The value of `FRS_ARTIFACTS_URL`."""
        return f"s3://{self.name}/{PREFIX}"

    def objects(self) -> list[str]:
        """Return the keys of all objects, without the prefix."""
        return [key.removeprefix(f"{PREFIX}/") for key in re.findall("<Key>([^<]+)</Key>", self.get("?list-type=2"))]

    def uploads(self) -> list[str]:
        """Return the keys of all multipart uploads that were neither completed nor aborted."""
        return re.findall("<Key>([^<]+)</Key>", self.get("?uploads"))

    def put_object(self, key: str) -> None:
        """Store an object below the prefix, as another program would."""
        httpx2.put(f"{self.endpoint}/{self.name}/{PREFIX}/{quote(key)}", content=b"x").raise_for_status()

    def get(self, path: str) -> str:
        """Return the response to a GET of the path or query."""
        return httpx2.get(f"{self.endpoint}/{self.name}{path}").raise_for_status().text


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment variables of a client of the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "canary-access-key-id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@pytest.fixture(scope="session")
def object_storage() -> Iterator[str]:
    """The endpoint of the server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(object_storage: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket; this process and its children have the credentials in their environment."""
    for name, value in environment(object_storage).items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(object_storage, f"frs-{secrets.token_hex(6)}")
    httpx2.put(f"{object_storage}/{bucket.name}").raise_for_status()
    return bucket
