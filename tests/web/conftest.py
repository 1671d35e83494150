"""Fixtures: a service with finished jobs, and a browser that is signed in to its page."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import ApiProcess
from waiting import until

from cli.client import Client
from cli.demo import RECIPE, copy_teacher_weights
from frs.dataset.shapes.drawing import draw_dataset
from store.db.database import open_database
from store.initialise import initialise
from store.settings import Settings
from worker.dispatch.dispatcher import Dispatcher

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TIMEOUT_SECONDS = 400
"""Time for the real jobs on a busy machine."""
HOSTILE = "<img src=x onerror=alert(1)>"


@dataclass
class Site:
    """A service, the ids of its jobs, and what the browser reported while its page was open."""

    api: ApiProcess
    client: Client
    data: Path
    jobs: dict[str, str]
    """Job ids by name: `distill`, `baseline`, `comparison`, `export` and `waiting`."""

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
    settings = Settings(data=data, poll_seconds=0.2, min_free_mb=1)
    initialise(settings)
    database = open_database(settings.database_url)
    dispatcher = Dispatcher(settings, database)
    with ApiProcess(settings, FRS_POLL_SECONDS="0.2") as api:
        client = Client(api.url, api.key)
        dispatcher.start()
        try:
            yield Site(api, client, data, _run_jobs(client))
        finally:
            dispatcher.stop()
            dispatcher.join()
            database.engine.dispose()


def _run_jobs(client: Client) -> dict[str, str]:
    """Run a short form of the demo, with an export, and submit a job that waits for GPUs."""
    for name in ("shapes", "hostile"):
        client.post("/datasets", {"name": name})
    spec = client.get(f"/recipes/{RECIPE}")["spec"]
    spec["schedule"] |= {"epochs": 8, "evaluate_every": 2}
    job = client.post("/jobs", spec | {"name": "distilled", "tags": ["demo"]})
    export = client.post(f"/jobs/{job['id']}/exports", {"formats": ["onnx"]})
    train = {"kind": "train", "dataset": "shapes", "student": spec["student"], "schedule": spec["schedule"]}
    waiting = client.post(
        "/jobs", train | {"name": "waiting", "resources": {"devices": 4}, "metadata": {"note": HOSTILE}}
    )
    jobs = {"distill": job["id"], "baseline": job["baseline_job_ids"][0]}
    jobs |= {"comparison": job["comparison_job_id"], "export": export["id"]}
    for job_id in jobs.values():
        until(lambda: client.get(f"/jobs/{job_id}")["is_terminal"], TIMEOUT_SECONDS)  # noqa: B023  called at once
        ended = client.get(f"/jobs/{job_id}")
        assert ended["status"] == "succeeded", ended["error"]
    client.post("/detectors", {"name": "delivered", "job": job["id"]})
    return jobs | {"waiting": waiting["id"]}


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
