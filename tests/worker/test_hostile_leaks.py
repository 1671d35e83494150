"""S14, S15, S19: log lines cannot be forged, no secret leaks, and no port is open to other machines."""

import json
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import running_mlflow
from pydantic import SecretStr
from waiting import until
from worker_harness import WorkerHarness, in_background

from frs.events import Log
from store.settings import Settings
from store.settings_report import report
from worker.process.output import escape_control
from worker.tracking import job_tracking

CONTROL = [chr(code) for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029) if code != 9]
FORGED = ["a" + char + '{"event": "forged", "level": "info"}' for char in CONTROL] + [
    "\x1b[2J\x1b[31m",
    "\x1b]0;title\x07",
    "\r\n" * 50,
]
SECRETS = {
    "FRS_DATABASE_URL": "postgresql://frs:canary-1-9d2e@db/frs",
    "FRS_BROKER_URL": "redis://:canary-2-9d2e@redis/0",
    "FRS_ARTIFACTS_URL": "file:///canary-3-9d2e",
    "FRS_API_KEY": "canary-4-9d2e",
    "AWS_SECRET_ACCESS_KEY": "canary-5-9d2e",
    "AWS_ACCESS_KEY_ID": "canary-11-9d2e",
    "AWS_SESSION_TOKEN": "canary-12-9d2e",
    "AWS_ENDPOINT_URL": "https://canary-13-9d2e",
    "POSTGRES_PASSWORD": "canary-14-9d2e",
    "GRAFANA_PASSWORD": "canary-15-9d2e",
    "PGPASSWORD": "canary-6-9d2e",
    "HF_TOKEN": "canary-7-9d2e",
    "LD_PRELOAD_SECRET": "canary-8-9d2e",
    "FRS_MLFLOW_URL": "https://frs:canary-16-9d2e@mlflow",
    "FRS_MLFLOW_TOKEN": "canary-17-9d2e",
    "FRS_WANDB_API_KEY": "canary-18-9d2e" + "0" * 40,
    "WANDB_API_KEY": "canary-19-9d2e",
}
LEAK = "-9d2e"


@pytest.mark.parametrize("logs", ["api", "worker"])
def test_log_fields_cannot_forge_lines_or_control_a_terminal(logs):
    code = f"""
import json, logging, sys
import structlog
from {logs} import logs
logs.configure()
for text in json.load(sys.stdin):
    logging.getLogger("x").warning("%s", text)
    logging.getLogger("x").warning(text, extra={{"job_id": text}})
    structlog.get_logger().warning("x", **{{"reason": text, "job_id": text}}) if {logs!r} == "worker" else None
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("x").exception("failed")
"""
    completed = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(FORGED), capture_output=True, text=True, check=True
    )
    lines = completed.stderr.split("\n")[:-1]
    assert len(lines) == len(FORGED) * (4 if logs == "worker" else 3)
    for line in lines:
        assert json.loads(line).get("event") != "forged"
        assert not any(char in line for char in CONTROL)


def test_trainer_output_cannot_forge_lines_or_control_a_terminal(harness):
    for char in CONTROL:
        assert char not in escape_control(f"a{char}b")
    texts = [FORGED[0] + "".join(CONTROL[:60]), "".join(CONTROL[60:]), *FORGED[-3:]]
    output = "".join("".join(harness.logs(harness.run(steps=1, output=text).id)) for text in texts)
    assert "forged" in output and not any(char in output for char in CONTROL)
    assert Log(message=escape_control("\x1b[2J")).message == "\\x1b[2J"


def test_no_secret_reaches_a_trainer_or_its_artifacts(harness, monkeypatch):
    (harness.settings.data / "api-key").write_text("canary-9-9d2e")
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("CANARY_10", "canary-10-9d2e")
    job_id = harness.submit(steps=5)
    harness.supervisor().run()
    variables = harness.artifact(job_id, "environ.json")
    assert variables["FRS_JAIL"] == "1" and LEAK not in json.dumps(variables)
    files = [path for path in harness.settings.artifacts_root.rglob("*") if path.is_file()]
    files += [harness.settings.data / "frs.db"]
    assert len(files) > 2
    for path in files:
        assert LEAK.encode() not in path.read_bytes(), path
    assert LEAK not in repr(harness.settings.model_copy(update={"database_url": SECRETS["FRS_DATABASE_URL"]}))
    assert LEAK not in "".join(harness.logs(job_id))


def test_no_secret_of_a_tracker_reaches_a_trainer_a_file_or_a_log(harness, monkeypatch, capfd):
    pytest.importorskip("wandb")
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    for name in ("LAST_SECONDS", "END_SECONDS"):
        monkeypatch.setattr(job_tracking, name, 0.5)
    with running_mlflow() as server:
        server.misbehave = quote_request
        settings = {
            "mlflow_url": server.url,
            "mlflow_token": SecretStr(SECRETS["FRS_MLFLOW_TOKEN"]),
            "wandb_project": "team/project",
            "wandb_api_key": SecretStr(SECRETS["FRS_WANDB_API_KEY"]),
            "wandb_url": server.url,
        }
        job_id = harness.submit(steps=50, seconds=0.02)
        thread = in_background(harness.supervisor(**settings))
        until(lambda: environments(str(harness.settings.data)))
        while thread.is_alive():
            assert LEAK not in "".join(environments(str(harness.settings.data)))
        assert any(LEAK in headers.get("authorization", "") for _, headers in server.requests)
    assert LEAK not in json.dumps(harness.artifact(job_id, "environ.json"))
    for path in harness.settings.data.rglob("*"):
        assert not path.is_file() or LEAK.encode() not in path.read_bytes(), path
    assert LEAK not in "".join(harness.logs(job_id)) and LEAK not in "".join(capfd.readouterr())
    with_secrets = Settings(data=harness.settings.data, artifacts_url="/artifacts")
    assert LEAK not in repr(with_secrets) + report(with_secrets, {})


def environments(text: str) -> list[str]:
    """Return the environments of the processes that contain the text: those of the W&B package."""
    texts = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            texts.append(path.read_bytes().decode(errors="replace"))
    return [environment for environment in texts if text in environment]


def quote_request(request: Any) -> bool:
    """Refuse the request and quote its headers, which contain the credentials."""
    headers = str(dict(request.headers.items()))
    request.reply(403, json.dumps({"error_code": headers, "message": headers}).encode(), Location=headers)
    return True


def listening() -> set[tuple[str, int, int]]:
    """Return (file, address, port) of listening TCP and of UDP sockets, without those of the loopback interface."""
    sockets = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, port = local.partition(":")
            if state in ("0A", "07") and not _is_loopback(address):
                sockets.add((name, int(address, 16), int(port, 16)))
    return sockets


def _is_loopback(address: str) -> bool:
    words = [struct.pack("<I", int(address[start : start + 8], 16)) for start in range(0, len(address), 8)]
    return words[-1][0] == 127 or b"".join(words) == bytes(15) + b"\x01"


def test_a_running_job_listens_on_the_loopback_interface_only(harness: WorkerHarness):
    before = listening()
    job_id = harness.submit(steps=200, seconds=0.01)
    supervisor = harness.supervisor()
    thread = in_background(supervisor)
    harness.until_step(job_id, 10)
    assert listening() <= before
    supervisor.release()
    thread.join()


def test_open_ports_are_detected():
    with socket.create_server(("0.0.0.0", 0)) as public, socket.create_server(("127.0.0.1", 0)) as local:
        ports = {port for _, _, port in listening()}
        assert public.getsockname()[1] in ports and local.getsockname()[1] not in ports
