"""API keys and passwords replaced while the service runs."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import httpx2
import pytest
from servers import free_port
from stack import Stack, run
from waiting import until

pytestmark = pytest.mark.docker
PROMETHEUS = """
FROM python:3.11-slim-bookworm
RUN apt-get update -q && apt-get install -y -q --no-install-recommends prometheus wget \\
 && install --directory --owner nobody --group nogroup /prometheus
USER nobody
ENTRYPOINT ["prometheus"]
"""
"""Debian's Prometheus, which needs no image registry."""


@pytest.fixture
def prometheus_image() -> str:
    run(["docker", "build", "--quiet", "--tag", "frs-prometheus:test", "-"], input=PROMETHEUS)
    return "frs-prometheus:test"


def test_prometheus_uses_a_replaced_key_without_a_restart(stack_with: Callable[..., Stack], prometheus_image: str):
    port = str(free_port())
    stack = stack_with(PROMETHEUS_IMAGE=prometheus_image, PROMETHEUS_PORT=port)
    stack.compose("up", "--detach", "--no-build", "--no-deps", "prometheus")

    def target() -> tuple[str, str]:
        """Return the health of the API as a target, and the time of the last scrape."""
        try:
            rows = httpx2.get(f"http://127.0.0.1:{port}/api/v1/targets").json()["data"]["activeTargets"]
        except httpx2.RequestError:
            rows = []
        api = next((row for row in rows if row["labels"]["job"] == "frs"), {"health": "starting", "lastScrape": ""})
        return api["health"], api["lastScrape"]

    until(lambda: target()[0] == "up", 90, lambda: str(target()))
    [old] = [row for row in stack.client.each("/api-keys") if row["scopes"] == ["metrics"]]
    (stack.source / ".secrets" / "prometheus" / "metrics-key").unlink()
    subprocess.run([sys.executable, stack.source / "docker" / "env.py"], check=True, capture_output=True)
    stack.compose("run", "--rm", "migrate")
    stack.client.delete(f"/api-keys/{old['id']}")
    revoked = datetime.now(UTC).isoformat()
    until(lambda: target()[1] > revoked, 60)
    assert target()[0] == "up"


def test_new_passwords_lose_no_job_and_end_the_old_ones(stack_with: Callable[..., Stack]):
    stack = stack_with()
    stack.add_bccd()
    job_id = stack.submit(schedule__max_steps=300)
    stack.wait_for_step(job_id, 30)
    before = {name: stack.setting(name) for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD")}
    script = str(stack.source / "docker" / "rotate_passwords.py")
    run([sys.executable, script], cwd=stack.source, env=stack.environment)
    stack.wait_until_healthy()
    job = stack.wait_until_ended(job_id)
    assert job["status"] == "succeeded" and job["attempt"] == 2, stack.logs(job_id)
    address = stack.setting("FRS_DATABASE_URL")
    query = "import sys; from sqlalchemy import create_engine; create_engine(sys.argv[1]).connect()"
    driver = address.replace("postgresql:", "postgresql+psycopg:")
    stack.inside("api", "python", "-c", query, driver)
    with pytest.raises(AssertionError, match="password authentication failed"):
        old = driver.replace(stack.setting("POSTGRES_PASSWORD"), before["POSTGRES_PASSWORD"])
        stack.inside("api", "python", "-c", query, old)
    assert "PONG" in stack.inside("redis", "redis-cli", "-a", stack.setting("REDIS_PASSWORD"), "ping")
    assert "PONG" not in stack.inside("redis", "redis-cli", "-a", before["REDIS_PASSWORD"], "ping")
