"""Each failure of a connection has a message of its own; "No service answers" is for connections that were not made."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import BREAK, Answer, answer, serve
from typer.testing import CliRunner

from cli.main import app
from frs_client import ServiceError

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def message(connect: Any) -> Any:
    """Return a function that sends a request, which fails, and returns the message."""

    def request(url: str, timeout: float = 5) -> str:
        with pytest.raises(ServiceError) as error:
            connect(url, "frs_key", timeout=timeout).get("/jobs")
        return f"{error.value.message} {error.value.hint}"

    return request


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://localhost:9", "http://host.invalid"])
def test_without_a_connection_no_service_answers(message: Any, url: str) -> None:
    assert message(url).startswith(f"No service answers at {url}")


def test_a_service_that_does_not_answer_in_time_is_there(message: Any, silent: str) -> None:
    assert "accepted the connection but did not answer in time" in message(f"http://{silent}", timeout=0.05)


def test_an_answer_that_breaks_off_is_a_broken_connection(message: Any) -> None:
    with serve(BREAK) as server:
        assert "broke before the answer was complete" in message(server.url)


def test_a_service_without_tls_is_a_failure_of_tls(message: Any) -> None:
    with serve(answer()) as server:
        text = message(server.url.replace("http:", "https:"))
    assert text.startswith("The TLS connection to https://") and "Use http://" in text


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>Sign in</html>"), "HTTP 200 with text/html"),
        ((403, {"Content-Type": "text/html"}, b"<html>Forbidden</html>"), "HTTP 403 with text/html"),
        ((301, {"Location": "https://frs.example/jobs"}, b""), "redirects to https://frs.example/jobs (HTTP 301)"),
        ((302, {"Location": "/login?token=a"}, b""), "/login (HTTP 302)"),
        ((502, {}, b"Bad gateway"), "A proxy before the service answered HTTP 502"),
        ((504, {"Content-Type": "text/html"}, b""), "A proxy before the service answered HTTP 504"),
    ],
)
def test_an_answer_that_is_not_of_the_service_is_described(message: Any, reply: Answer, expected: str) -> None:
    with serve(reply) as server:
        text = message(server.url)
    assert expected in text and "No service answers" not in text


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://", "http://[::1", "not a url"])
def test_an_address_that_is_no_url_is_an_error(message: Any, url: str) -> None:
    assert "FRS_URL" in message(url)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "127.0.0.1:9", "nonsense://x y"])
def test_loopback_addresses_use_no_proxy(
    connect: Any, variable: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy)
    with serve(answer({"data": []})) as server:
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            assert connect(server.url.replace("127.0.0.1", host), "frs_key").get("/jobs") == {"data": []}


def test_a_proxy_that_is_not_there_is_named_without_its_password(message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    text = message("http://frs.invalid")
    assert text.startswith("No proxy answers at http://127.0.0.1:9") and "NO_PROXY" in text and "secret" not in text


def test_a_proxy_that_refuses_a_connection_is_named(message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve((403, {}, b"")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        text = message("https://frs.invalid")
    assert text.startswith(f"The proxy {proxy.url} made no connection to https://frs.invalid")


@pytest.mark.parametrize("proxy", ["socks4://127.0.0.1:9", "nonsense://127.0.0.1", "http://[::1"])
def test_a_proxy_setting_that_cannot_be_used_is_an_error(
    message: Any, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert "HTTPS_PROXY" in message("http://frs.invalid")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    student = {"id": "ckpt_1", "sha256": "0" * 64, "labels": ["last"]}
    with serve(answer({"data": [student], "next_cursor": None})) as server:
        monkeypatch.setenv("FRS_URL", server.url)
        monkeypatch.setenv("FRS_API_KEY", "frs_key")
        result = CliRunner().invoke(app, ["pull", "job_1", "--output", str(tmp_path / "file" / "students")])
    assert result.exit_code == 1 and "cannot be read or written" in result.stderr
