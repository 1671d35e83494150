"""`frs` never prints an API key, whatever is wrong with it, and removes white space around it."""

from pathlib import Path
from typing import Any

import pytest
from scripted_server import BREAK, answer, serve
from typer.testing import CliRunner

from cli.main import app
from frs_client import Client, ServiceError

SECRET = "secret-of-mine"
UNKNOWN = answer({"code": "unknown_key", "detail": "This API key is unknown.", "hint": "", "errors": []}, 401)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FRS_URL", "FRS_API_KEY", "FRS_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "key",
    [
        f"frs_{SECRET}\n",
        f"\t frs_{SECRET}\r\n",
        f"frs_{SECRET} # of the service",
        f"Bearer frs_{SECRET}",
        f"frs_{SECRET}\nfrs_{SECRET}",
        f"frs_{SECRET}\u2019",
        f"\u201cfrs_{SECRET}\u201d",
        f"frs_{SECRET}\x7f",
        f'"frs_{SECRET}"',
        f"frs_{SECRET}",
    ],
)
@pytest.mark.parametrize("reply", [UNKNOWN, BREAK])
def test_no_message_contains_the_key(key: str, reply: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(reply) as server:
        monkeypatch.setenv("FRS_URL", server.url)
        monkeypatch.setenv("FRS_API_KEY", key)
        result = CliRunner().invoke(app, ["jobs"])
    assert result.exit_code == 1 and result.stderr.strip()
    assert SECRET not in result.output + result.stderr
    assert isinstance(result.exception, SystemExit), "an expected failure has no traceback"


@pytest.mark.parametrize(
    "content", [b"frs_key", b"frs_key\n", b"  frs_key \r\n", b"\xef\xbb\xbffrs_key\r\n", b"\nfrs_key"]
)
def test_white_space_around_the_key_of_a_file_is_removed(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "api-key").write_bytes(content)
    with serve(answer({"data": []})) as server:
        (tmp_path / "url").write_text(f"{server.url}/ \n")
        Client(data=tmp_path).get("/jobs")
    assert server.header("authorization") == ["Bearer frs_key"]


@pytest.mark.parametrize("content", ["frs_key\n".encode("utf-16"), b"\xff\xfe", b"frs_a frs_b"])
def test_a_malformed_key_file_is_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "api-key").write_bytes(content)
    with pytest.raises(ServiceError, match="API key is malformed") as error:
        Client(data=tmp_path)
    assert "api-key" in error.value.hint and "frs_a" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://user:{}@127.0.0.1:9", "https://{}@127.0.0.1:9/frs", "http://127.0.0.1:9/?key={}"]
)
def test_no_message_contains_a_password_of_the_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRS_URL", url.format(SECRET))
    monkeypatch.setenv("FRS_API_KEY", "frs_key")
    result = CliRunner().invoke(app, ["jobs"])
    assert result.exit_code == 1 and "127.0.0.1:9" in result.stderr
    assert SECRET not in result.output + result.stderr
