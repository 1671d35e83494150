"""`frs webhooks`: create, list and delete webhooks, list and repeat their deliveries."""

import json
from pathlib import Path
from typing import Any

from test_commands import submit


def add(frs: Any, *options: str) -> dict[str, Any]:
    return json.loads(frs("webhooks", "add", "https://hooks.invalid/frs", *options, "--json").output)


def test_the_secret_is_printed_once(frs: Any) -> None:
    output = frs("webhooks", "add", "https://hooks.invalid/frs").output
    assert output.startswith("whsec_") and "not shown again" in output
    listed = frs("webhooks", "list").output
    assert "https://hooks.invalid/frs" in listed and "active" in listed and "whsec_" not in listed


def test_a_url_that_is_not_allowed_is_an_error_without_a_traceback(frs: Any) -> None:
    assert "FRS_WEBHOOK_ALLOWED_NETWORKS" in frs("webhooks", "add", "http://127.0.0.1/", code=1).stderr
    assert "invalid_request" in frs("webhooks", "add", "ftp://hooks.invalid/", code=1).stderr
    assert "events" in frs("webhooks", "add", "https://hooks.invalid/", "--events", "job.exploded", code=1).stderr


def test_deliveries_are_listed_and_sent_again(frs: Any, shapes: None, tmp_path: Path) -> None:
    webhook = add(frs, "--events", "job.cancelled, job.failed")
    assert webhook["events"] == ["job.cancelled", "job.failed"]
    job_id = submit(frs, tmp_path)["id"]
    frs("cancel", job_id)
    output = frs("webhooks", "deliveries", webhook["id"]).output
    assert job_id in output and "job.cancelled" in output and "pending" in output
    [delivery] = json.loads(frs("webhooks", "deliveries", webhook["id"], "--json").output)["data"]
    assert delivery["id"] in frs("webhooks", "redeliver", webhook["id"], delivery["id"]).output
    assert delivery["id"] not in frs("webhooks", "deliveries", webhook["id"], "--status", "dead").output


def test_a_webhook_is_deleted(frs: Any) -> None:
    webhook = add(frs)
    assert "is deleted" in frs("webhooks", "delete", webhook["id"]).output
    assert webhook["id"] not in frs("webhooks", "list").output
    assert "webhook_not_found" in frs("webhooks", "deliveries", webhook["id"], code=1).stderr
