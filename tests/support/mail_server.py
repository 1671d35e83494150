"""A mail server on loopback for tests: it takes messages, or answers a command with an error."""

import queue
import socketserver
import threading
from typing import Self


class MailServer:
    """An SMTP server without TLS. `answers` replaces its answers to commands, such as `{"RCPT": "550 unknown"}`."""

    def __init__(self, answers: dict[str, str] | None = None) -> None:
        self.messages: queue.Queue[bytes] = queue.Queue()
        self.commands: list[str] = []
        server = self
        usual = {"DATA": "354 go on", "QUIT": "221 bye"}

        class Session(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 mail.example\r\n")
                while line := self.rfile.readline():
                    command = line.split()[0].decode().upper()
                    server.commands.append(line.decode().strip())
                    answer = (usual | (answers or {})).get(command, "250 ok")
                    self.wfile.write(f"{answer}\r\n".encode())
                    if answer.startswith("354"):
                        server.messages.put(b"".join(iter(self.rfile.readline, b".\r\n")))
                        self.wfile.write(b"250 ok\r\n")
                    if command == "QUIT":
                        return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
        self._server.daemon_threads = True
        self.url = f"smtp://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
