"""Startup, shutdown, health checks and the OpenAPI document."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from servers import free_port
from sqlalchemy import delete

from api.__main__ import is_loopback
from api.app import create_app
from frs.spec import JobSpec
from store.db.database import open_database
from store.db.tables import ApiKey
from store.errors import DatabaseNotReady
from store.settings import Settings


def test_the_api_imports_no_torch():
    code = "import sys, api.app; print([m for m in ('torch', 'mmengine', 'mmdet', 'mmcv') if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_it_does_not_start_without_an_api_key(settings):
    with open_database(settings.database_url).write() as session:
        session.execute(delete(ApiKey))
        session.commit()
    with pytest.raises(DatabaseNotReady, match="no API key.*store init"):
        create_app(settings)


def test_it_starts_without_the_file_of_the_first_key(settings):
    settings.api_key_file.unlink()
    create_app(settings)


def test_it_does_not_start_without_a_database(settings):
    (settings.data / "frs.db").unlink()
    with pytest.raises(DatabaseNotReady, match="store init"):
        create_app(settings)


def test_in_an_empty_folder_it_prints_the_init_command(tmp_path):
    command = [sys.executable, "-m", "api", "--port", "1"]
    environment = os.environ | {"FRS_DATA": str(tmp_path / "none")}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert process.returncode == 1
    assert "python -m store init" in process.stderr
    assert "Traceback" not in process.stderr


def test_it_serves_logs_json_and_stops_on_sigterm(settings: Settings):
    port = free_port()
    command = [sys.executable, "-m", "api", "--host", "0.0.0.0", "--port", str(port)]
    environment = os.environ | {"FRS_DATA": str(settings.data), "FRS_PARENT_PID": str(os.getpid())}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert wait_for(f"http://127.0.0.1:{port}/health/ready") == 200
        assert wait_for(f"http://127.0.0.1:{port}/jobs%0aforged") == 401
    finally:
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=15)
    assert process.returncode in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in (stdout + stderr).splitlines()]
    assert any("TLS" in line["event"] and line["level"] == "warning" for line in lines)
    requests = [line for line in lines if line["event"] == "request"]
    assert requests[-1]["status"] == 401
    assert requests[-1]["path"] == "/jobs\nforged"
    assert requests[-1]["request_id"].startswith("req_")
    key = settings.api_key_file.read_text().strip()
    assert key not in stdout + stderr


def wait_for(url):
    """Return the status of the first response."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", 1), ("::1", 1), ("localhost", 1), ("0.0.0.0", 0), ("host", 0)]
)
def test_loopback_addresses_are_recognised(host, loopback):
    assert is_loopback(host) == bool(loopback)


def test_readiness_requires_a_migrated_database(service):
    assert service.get("/health/live") == service.get("/health/ready") == {"status": "ok"}
    with service.database.write() as session:
        session.connection().exec_driver_sql("DELETE FROM alembic_version")
        session.commit()
    service.assert_problem(service.client.get("/health/ready"), 503, "database_not_ready")
    assert service.get("/health/live") == {"status": "ok"}


def test_the_version_is_returned(shared_service):
    assert shared_service.get("/version").keys() == {"frs", "python"}


def test_recipes_have_valid_specs(shared_service):
    recipes = shared_service.get("/recipes")["data"]
    assert len(recipes) >= 5
    for recipe in recipes:
        JobSpec.model_validate(recipe["spec"])
        assert shared_service.get(f"/recipes/{recipe['name']}") == recipe


def test_the_document_describes_the_spec_with_examples_and_errors(shared_service):
    document = shared_service.get("/openapi.json")
    body = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/JobSpec"}
    assert body["examples"]
    parameters = {row["name"]: row["in"] for row in document["paths"]["/jobs"]["post"]["parameters"]}
    assert parameters == {"Idempotency-Key": "header"}
    shared = document["components"]["responses"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            errors = {status: response for status, response in operation["responses"].items() if int(status) >= 400}
            assert {"400", "500", "503"} <= errors.keys()
            for response in errors.values():
                resolved = response if "content" in response else shared[response["$ref"].rpartition("/")[2]]
                assert "application/problem+json" in resolved["content"]
            assert operation["security"] == ([] if path.startswith("/health") else [{"HTTPBearer": []}])
    assert "code" in document["components"]["schemas"]["ProblemDetails"]["properties"]
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]
