"""Fixtures: a service with finished jobs, and a browser that is signed in to its page."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import ApiProcess
from waiting import until

from cli.demo import RECIPE, copy_teacher_weights
from frs.dataset.shapes.drawing import draw_dataset
from frs_client import Client
from store.db.database import open_database
from store.initialise import initialise
from store.settings import Settings
from worker.dispatch.dispatcher import Dispatcher
from worker.process.trainer import COMMAND

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TIMEOUT_SECONDS = 400
"""Time for the real jobs on a busy machine."""
HOSTILE = "<img src=x onerror=alert(1)>"
STUB = (sys.executable, str(Path(__file__).parents[1] / "worker" / "stub_trainer.py"))
STUB_JOBS: dict[str, dict[str, object]] = {
    "running": {"steps": 5000, "seconds": 0.5},
    "paused": {"steps": 1_000_000, "seconds": 0.05},
    "cancelled": {"steps": 1_000_000, "seconds": 0.05},
    "failed": {"steps": 30, "fail": "out_of_memory"},
    "long": {"steps": 5000, "seconds": 0},
}
"""Options of the stub trainer by job: states that the real jobs do not reach, and many rows of metrics."""
REQUESTS = {"paused": "pause", "cancelled": "cancel"}
"""Action by job of the stub."""


@dataclass
class Site:
    """A service, the ids of its jobs, and what the browser reported while its page was open."""

    api: ApiProcess
    client: Client
    data: Path
    jobs: dict[str, str]
    """Ids by name: `distill`, `baseline`, `comparison`, `export`, `waiting`, `dependent`, `sweep`, the stub jobs."""

    def address(self, view: str) -> str:
        return f"{self.api.url}/{view}"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("site")
    draw_dataset(data / "datasets" / "shapes", train=48, val=16)
    copy_teacher_weights(data / "models")
    draw_dataset(data / "datasets" / "hostile", train=2, val=2)
    for annotations in (data / "datasets" / "hostile" / "annotations").iterdir():
        annotations.write_text(annotations.read_text().replace('"star"', f'"{HOSTILE}"'))
    settings = Settings(data=data, poll_seconds=0.2, min_free_mb=1, concurrency=2)  # one slot keeps `running`
    initialise(settings)
    database = open_database(settings.database_url)
    dispatcher = Dispatcher(settings, database, STUB)
    with ApiProcess(settings, FRS_POLL_SECONDS="0.2") as api:
        client = Client(api.url, api.key)
        for name in ("shapes", "hostile"):
            client.post("/datasets", {"name": name})
        dispatcher.start()
        try:
            client.webhooks.create("https://hooks.invalid/frs")
            jobs = _run_stub_jobs(client) | {"sweep": _run_sweep(client)}
            dispatcher.command = COMMAND
            yield Site(api, client, data, jobs | _run_jobs(client, jobs["running"]))
        finally:
            dispatcher.stop()
            dispatcher.join()
            database.engine.dispose()


def _run_stub_jobs(client: Client) -> dict[str, str]:
    """Bring a job of the stub trainer into each state; `running` keeps running."""
    student = {"architecture": "gfl", "backbone": {"depth": 18}}
    jobs = {}
    for name, options in STUB_JOBS.items():
        metadata = {option: str(value) for option, value in options.items()}
        spec = {"kind": "train", "dataset": "shapes", "student": student, "name": name, "metadata": metadata}
        jobs[name] = job_id = client.post("/jobs", spec)["id"]
        until(lambda: client.get(f"/jobs/{job_id}")["progress"], TIMEOUT_SECONDS)  # noqa: B023  called at once
        if name in REQUESTS:
            client.post(f"/jobs/{job_id}/{REQUESTS[name]}")
        expected = "succeeded" if name == "long" else name
        until(lambda: client.get(f"/jobs/{job_id}")["status"] == expected, TIMEOUT_SECONDS)  # noqa: B023
    return jobs


def _run_sweep(client: Client) -> str:
    """Run a sweep with the stub trainer."""
    student = {"architecture": "gfl", "backbone": {"depth": 18}}
    spec = {"kind": "train", "dataset": "shapes", "student": student, "metadata": {"steps": "20", "seconds": "0"}}
    sweep = client.sweeps.create({"name": "rates", "spec": spec, "space": {"schedule.batch_size": [4, 8]}})
    ended = client.sweeps.wait(sweep.id, TIMEOUT_SECONDS)
    assert ended.status == "succeeded", ended.error
    return sweep.id


def _run_jobs(client: Client, running: str) -> dict[str, str]:
    """Run a short form of the demo, with an export; submit a job that waits for GPUs, one that waits for `running`."""
    spec = client.get(f"/recipes/{RECIPE}")["spec"]
    spec["schedule"] |= {"epochs": 8, "evaluate_every": 2}
    job = client.post("/jobs", spec | {"name": "distilled", "tags": ["demo"]})
    export = client.post(f"/jobs/{job['id']}/exports", {"formats": ["onnx"]})
    train = {"kind": "train", "dataset": "shapes", "student": spec["student"], "schedule": spec["schedule"]}
    waiting = client.post(
        "/jobs", train | {"name": "waiting", "resources": {"devices": 4}, "metadata": {"note": HOSTILE}}
    )
    dependent = client.post("/jobs", spec | {"name": "dependent", "teacher": {"job": running}, "baseline": False})
    jobs = {"distill": job["id"], "baseline": job["baseline_job_ids"][0]}
    jobs |= {"comparison": job["comparison_job_id"], "export": export["id"]}
    for job_id in jobs.values():
        until(lambda: client.get(f"/jobs/{job_id}")["is_terminal"], TIMEOUT_SECONDS)  # noqa: B023  called at once
        ended = client.get(f"/jobs/{job_id}")
        assert ended["status"] == "succeeded", ended["error"]
    client.post("/detectors", {"name": "delivered", "job": job["id"]})
    return jobs | {"waiting": waiting["id"], "dependent": dependent["id"]}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@dataclass
class Tab:
    """A browser tab, and what went wrong in it."""

    page: Page
    site: Site
    problems: list[str]
    """Messages of the console at level error, uncaught exceptions, and requests to other hosts."""

    def open(self, view: str) -> Page:
        """Show a view and wait until its data is there."""
        self.page.goto(self.site.address(view))
        self.page.wait_for_selector("main :is(h1, h2)")
        expect(self.page.locator(".loading")).to_have_count(0)
        return self.page


@pytest.fixture
def make_tab(site: Site, browser: Browser) -> Iterator[Any]:
    """Return a function that opens a tab; by default it is signed in with the admin's key."""
    contexts = []

    def open_tab(key: str | None = site.api.key, **options: Any) -> Tab:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(20_000)
        contexts.append(context)
        if key:
            context.add_init_script(
                f"sessionStorage.getItem('frs-api-key') ?? sessionStorage.setItem('frs-api-key', '{key}')"
            )
        page, problems = context.new_page(), list[str]()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if _is_foreign(request.url, site) else None)
        return Tab(page, site, problems)

    yield open_tab
    for context in contexts:
        context.close()


def _is_foreign(url: str, site: Site) -> bool:
    return not url.startswith((site.api.url, "blob:", "data:"))
