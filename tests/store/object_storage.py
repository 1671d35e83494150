"""Object storage that speaks S3, in this process and on loopback; every test has a bucket of its own."""

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
    endpoint: str
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{PREFIX}"

    def objects(self) -> list[str]:
        """Of all objects, without the prefix."""
        return [key.removeprefix(f"{PREFIX}/") for key in re.findall("<Key>([^<]+)</Key>", self.get("?list-type=2"))]

    def uploads(self) -> list[str]:
        """Of all that were begun and neither completed nor aborted."""
        return re.findall("<Key>([^<]+)</Key>", self.get("?uploads"))

    def lay(self, key: str) -> None:
        """An object that is not by us, below the prefix."""
        httpx2.put(f"{self.endpoint}/{self.name}/{PREFIX}/{quote(key)}", content=b"x").raise_for_status()

    def get(self, what: str) -> str:
        return httpx2.get(f"{self.endpoint}/{self.name}{what}").raise_for_status().text


def environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "canary-access-key-id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@pytest.fixture(scope="session")
def object_storage() -> Iterator[str]:
    """Its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(object_storage: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Known to this process, and to those it starts, by their environment."""
    for name, value in environment(object_storage).items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(object_storage, f"frs-{secrets.token_hex(6)}")
    httpx2.put(f"{object_storage}/{bucket.name}").raise_for_status()
    return bucket
