"""No URL in a request is fetched: a trap on loopback receives no connection."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from request_places import Request, posts, with_parameter


class Trap:
    """Listens on TCP and UDP and counts connections and packets."""

    def __init__(self) -> None:
        self.hits = 0
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        for listen in (self._accept, self._receive):
            threading.Thread(target=listen, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._tcp.accept()[0].close()
                self.hits += 1

    def _receive(self) -> None:
        with suppress(OSError):
            while True:
                self._udp.recv(64)
                self.hits += 1

    def close(self) -> None:
        for listener in (self._tcp, self._udp):
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    trap.close()


def urls(port: int) -> list[str]:
    schemes = (
        "http",
        "https",
        "ftp",
        "file",
        "gopher",
        "dict",
        "ldap",
        "tftp",
        "sftp",
        "s3",
        "gs",
        "hdfs",
        "ws",
        "jar:http",
        "data",
        "HTTP",
        "hTTp",
        "http:",
        "petrel",
        "openmmlab",
        "modelzoo",
        "git+http",
        "redis",
        "postgresql",
        "smb",
        "rsync",
    )
    hosts = (
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1.nip.io",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "user:pass@127.0.0.1",
        "evil.com@127.0.0.1",
        "127.0.0.1#@evil.com",
        "169.254.169.254",
        "[fe80::1%25lo]",
        "metadata.google.internal",
        "%31%32%37.0.0.1",
    )
    forms = [f"{scheme}://127.0.0.1:{port}/x.pth" for scheme in schemes]
    forms += [f"http://{host}:{port}/x" for host in hosts]
    at = f"127.0.0.1:{port}"
    return [
        *forms,
        f"//{at}/x",
        f"\\\\{at}\\x",
        f"http:/{at}/x",
        f"http:{at}",
        f" http://{at}/x",
        f"\thttp://{at}/x",
        f"ht\ntp://{at}/x",
        f"http:\\\\{at}\\x",
        f"http%3A%2F%2F{at}",
        f"http%253A%252F%252F{at}",
        f"x http://{at}/",
        f"../http://{at}/x",
        f"url:http://{at}/x",
        f"javascript://{at}/%0aalert(1)",
        f"mmdet::http://{at}/x.py",
        f"tcp://{at}",
        f"file://{at}/etc/passwd",
        at,
    ]


def test_no_url_in_any_field_is_fetched(service, shapes, trap):
    forms, sent = urls(trap.port), 0
    assert len(forms) >= 60
    for number, url in enumerate(forms):
        requests: list[Request] = [*list(posts(url))[number % 3 :: 3], *with_parameter(url)]
        for request in requests:
            response = service.client.request(request.method, request.path, json=request.body)
            assert response.status_code < 500, (request, response.text)
            sent += 1
    for header in (
        "Host",
        "Referer",
        "Origin",
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "Forwarded",
        "Link",
        "X-Original-URL",
        "Location",
    ):
        for url in forms[::6]:
            service.client.get("/jobs", headers={header: url.encode()})
    assert trap.hits == 0 and sent > 2000
    socket.create_connection(("127.0.0.1", trap.port)).close()


def test_the_trap_counts_a_connection(trap):
    socket.create_connection(("127.0.0.1", trap.port)).close()
    for _ in range(100):
        if trap.hits:
            return
        threading.Event().wait(0.05)
    raise AssertionError("the trap counted no connection")
