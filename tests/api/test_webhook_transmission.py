"""One attempt against real receivers on loopback: good ones, broken ones, lying ones."""

import asyncio
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from receivers import Receiver, send, status, wait_for
from servers import free_port
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from waiting import until

from api.webhooks.addresses import NOT_ALLOWED, CheckedBackend
from api.webhooks.transmission import Transmitter, headers
from store.webhooks.deliveries import Claim

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = '{"type": "job.succeeded", "data": {"name": "K\\u00e4fer"}}'
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def claim(url, **changes) -> Claim:
    fields = {"delivery_id": "delivery_1", "webhook_id": "webhook_1", "attempt": 1, "secret": SECRET, "body": BODY}
    return Claim(url=url, at=datetime.now(UTC).timestamp(), **fields | changes)


def transmit(url, *, allowed=(LOOPBACK,), seconds=60.0, resolve=None):
    backend = CheckedBackend(allowed, resolve) if resolve else CheckedBackend(allowed)
    return asyncio.run(Transmitter(backend, ssl.create_default_context()).send(claim(url), seconds))


def test_the_signature_is_that_of_the_specification():
    """The example of the Standard Webhooks reference libraries."""
    example = claim("", delivery_id="msg_p5jXN8AQM9LWM0D4loKWxJek", body='{"test": 2432232314}')
    sent = headers(Claim(**{**vars(example), "at": 1614265330.75}))
    assert sent["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert sent["webhook-timestamp"] == "1614265330"
    assert sent["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_gets_the_body_signed():
    with Receiver() as receiver:
        outcome = transmit(f"{receiver.url}?token=a%20b")
        [request] = receiver.requests()
    assert (outcome.status_code, outcome.error) == (204, None)
    assert (request.method, request.target) == ("POST", "/hook?token=a%20b")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.body == BODY.encode()
    assert Webhook(SECRET).verify(request.body, request.headers)["type"] == "job.succeeded"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body + b" ", request.headers)


@pytest.mark.parametrize("code", [400, 404, 410, 429, 500, 503])
def test_a_status_that_is_no_success_is_an_error(code):
    with Receiver(status(code)) as receiver:
        outcome = transmit(receiver.url)
    assert (outcome.status_code, outcome.error) == (code, f"The receiver answered {code}.")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(code):
    with Receiver() as target, Receiver(status(code, f"Location: {target.url}")) as receiver:
        outcome = transmit(receiver.url)
        assert target.requests() == []
    assert (outcome.status_code, "redirects are not followed" in outcome.error) == (code, True)


def test_a_receiver_that_is_down_is_an_error():
    with Receiver() as receiver:
        url = receiver.url
    outcome = transmit(url)
    assert outcome.status_code is None
    assert outcome.error.startswith("The connection failed:")


def test_a_receiver_that_does_not_answer_is_abandoned():
    end = threading.Event()
    with Receiver(wait_for(end)) as receiver:
        outcome = transmit(receiver.url, seconds=0.1)
        end.set()
    assert (outcome.status_code, outcome.error) == (None, "The receiver did not answer within 0.1 s.")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"220 mail.example ESMTP\r\n",
        b"\x16\x03\x01\x00\xff" * 20,
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 1_000_000,
    ],
    ids=["nothing", "closed in its headers", "another protocol", "TLS", "wrong length", "endless headers"],
)
def test_an_answer_that_is_not_http_is_an_error(answer):
    with Receiver(send(answer)) as receiver:
        outcome = transmit(receiver.url)
    assert outcome.status_code is None
    assert outcome.error


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nlonger than announced",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnot gzip",
    ],
    ids=["closes in mid-answer", "longer than announced", "broken chunks", "broken encoding"],
)
def test_the_status_decides_whatever_the_body_is(answer):
    with Receiver(send(answer)) as receiver:
        outcome = transmit(receiver.url)
    assert (outcome.status_code, outcome.error) == (200, None)


def test_an_answer_of_1_gb_is_not_read():
    sent = []
    closed = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            for _ in range(1000):
                sent.append(connection.send(bytes(1_000_000)))
        finally:
            closed.set()

    with Receiver(answer) as receiver:
        outcome = transmit(receiver.url)
        assert closed.wait(60)
    assert (outcome.status_code, outcome.error) == (200, None)
    assert sum(sent) < 50_000_000, "only the buffers of the sockets"


def test_a_name_that_resolves_to_the_metadata_address_is_refused():
    async def resolve(host, port):
        return ["169.254.169.254"]

    outcome = transmit("http://hooks.example/latest/meta-data", allowed=(), resolve=resolve)
    assert (outcome.status_code, outcome.error) == (None, NOT_ALLOWED)


def test_a_name_that_does_not_resolve_is_an_error():
    async def resolve(host, port):
        raise OSError("no such host: secret.internal")

    outcome = transmit("http://hooks.example/", resolve=resolve)
    assert outcome.error == "The connection failed: The host name cannot be resolved."


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert transmit(receiver.url).error is None
        assert proxy.requests() == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A self-signed certificate of the name hooks.example, with its key."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    command = ["openssl", "req", "-x509", *options, *names, "-keyout", str(file), "-out", str(file.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.mark.parametrize(
    ("host", "trusted", "error"),
    [
        ("hooks.example", True, None),
        ("hooks.example", False, "certificate verify failed"),
        ("other.example", True, "Hostname mismatch"),
    ],
)
def test_the_certificate_must_be_trusted_and_name_the_host_of_the_url(certificate, host, trusted, error):
    """Of the URL, although the connection goes to an address."""

    async def resolve(host, port):
        return ["127.0.0.1"]

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=certificate.with_suffix(".crt") if trusted else None)
    with Receiver(tls=server) as receiver:
        transmitter = Transmitter(CheckedBackend([LOOPBACK], resolve), client)
        outcome = asyncio.run(transmitter.send(claim(f"https://{host}:{receiver.port}/hook")))
        assert len(receiver.requests()) == (error is None)
    assert (error or "") in (outcome.error or "")
    assert (outcome.error is None) == (error is None)


def test_the_receiver_of_the_documentation_accepts_only_signed_requests_and_each_event_once(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    script = tmp_path / "receiver.py"
    script.write_text(page.partition("```python\n")[2].partition("```")[0])
    port = free_port()
    command = [sys.executable, str(script), str(port)]
    environment = os.environ | {"WEBHOOK_SECRET": SECRET}
    body = '{"type": "job.failed", "data": {"id": "job_1", "end_reason": "diverged"}}'
    signed = claim(f"http://127.0.0.1:{port}/", body=body)
    forged = claim(signed.url, body=body, secret="whsec_" + "A" * 44)
    transmitter = Transmitter(CheckedBackend([LOOPBACK]))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        until(lambda: asyncio.run(transmitter.send(forged)).status_code == 401)
        outcomes = [asyncio.run(transmitter.send(signed)).status_code for _ in range(2)]
        process.terminate()
        output = process.communicate()[0]
    assert outcomes == [204, 204]
    assert output == b"job.failed job_1 diverged\n"
