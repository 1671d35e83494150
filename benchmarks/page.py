"""The page on full tables: time until data is drawn, size of its files, delay of live changes, memory of a live tab.

    python benchmarks/page.py --minutes 30 --json

100,000 jobs, and a job with 20 curves of 50,000 points. The live job gets a step of 20 metrics and a log line each
second. Needs Chromium.
"""

import argparse
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from playwright.sync_api import CDPSession, Page, sync_playwright
from queries import JOBS, KEYS, LONG, fill
from service_process import ServiceProcess, start_service
from sqlalchemy import text

REPEATS = 7
CHANGES = 40
"""Live changes of each kind whose delay is measured."""
LIVE = "job_00000000000000000000000001"
LONG_JOB = "job_00000000000000000000000002"
CHARTS = "metrics=train/metric_00,train/metric_01,train/metric_02,train/metric_03"
READY = {
    "jobs": ("#/jobs", "tbody tr"),
    "overview": ("#/", "tbody tr"),
    "job": (f"#/jobs/{LONG_JOB}", "main .facts"),
    "curves": (f"#/jobs/{LONG_JOB}/curves?{CHARTS}", "main .chart canvas"),
}
"""View: its address, and what is there once a reader can use it."""
VIEWS = ("", "jobs", "new", "datasets", "detectors", "compare", "recipes", "keys", f"jobs/{LONG_JOB}/curves?{CHARTS}")
VIEWS += tuple(f"jobs/{LONG_JOB}/{tab}" for tab in ("verdict", "pictures", "files", "log"))
START = """UPDATE jobs SET status = 'running', attempt = 1, lease_owner = 'bench', phase = 'training',
 started_at = created_at, lease_expires_at = 9999999999 WHERE id = :id"""
END = """UPDATE jobs SET status = 'succeeded', end_reason = 'completed', attempt = 1, started_at = created_at,
 finished_at = created_at + 9 WHERE id = :id"""
NEXT = "UPDATE jobs SET last_event = last_event + 2 WHERE id = :id"
LOG = """INSERT INTO events (job_id, seq, attempt, type, at, data)
 SELECT id, last_event - 1, 1, 'log', :at, '{"level": "info", "message": "one more second has gone by"}'
 FROM jobs WHERE id = :id"""
STEP = """INSERT INTO metrics (job_id, key, step, epoch, value, at, attempt, seq)
 SELECT id, :key, :step, 1, :value, :at, 1, last_event FROM jobs WHERE id = :id"""
NUMBER = "UPDATE jobs SET last_event = last_event + 1, name = :name WHERE id = :id"
EVENT = """INSERT INTO events (job_id, seq, attempt, type, at, data)
 SELECT id, last_event, 1, :type, :at, :data FROM jobs WHERE id = :id"""


class Change(NamedTuple):
    """A change of the live job, with the place of {number}, and what shows it."""

    view: str
    statement: str
    shown: str
    type: str = ""
    data: str = ""


LIVE_CHANGES = {
    "state": Change("", EVENT, 'h1:text-is("change {number}")', "changed", '{"name": "change {number}"}'),
    "log": Change(
        "/log", EVENT, '.text:text-is("change {number}")', "log", '{"level": "info", "message": "change {number}"}'
    ),
    "curve": Change(f"/curves?smooth=0&{CHARTS}", STEP, '[aria-label^="metric 00"][aria-label$=" {number}"]'),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--scale", type=float, default=1.0, help="scale of the table sizes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.minutes, options.scale)
    print(json.dumps(result) if options.json else "\n".join(f"{name} {value}" for name, value in result.items()))


def measure(minutes: float, scale: float = 1.0) -> dict[str, Any]:
    """Return seconds until views and live changes are shown (median and largest), and bytes of files and heap."""
    with start_service("sqlite") as service:
        fill(service.database, int(JOBS * scale), 1, int(LONG * scale))
        _execute(service, END, LONG_JOB)
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        with service.api, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            result = {name: _measure_view(browser, service, *view) for name, view in READY.items()}
            result["bytes"] = _weigh(browser, service)
            _execute(service, START, LIVE)
            result["live"] = {kind: _measure_changes(browser, service, LIVE_CHANGES[kind]) for kind in LIVE_CHANGES}
            result["heap"] = _watch_heap(browser, service, minutes)
            browser.close()
    return result


def _open(browser: Any, service: ServiceProcess) -> Page:
    """Return a page in a context of its own, so with an empty cache, that is signed in."""
    context = browser.new_context()
    context.add_init_script(f"sessionStorage.setItem('frs-api-key', '{service.api.key}')")
    return context.new_page()


def _measure_view(browser: Any, service: ServiceProcess, address: str, ready: str) -> dict[str, float]:
    seconds = []
    for _ in range(REPEATS):
        page = _open(browser, service)
        started = time.perf_counter()
        page.goto(f"{service.api.url}/{address}", wait_until="commit")
        page.wait_for_selector(ready)
        seconds.append(time.perf_counter() - started)
        page.context.close()
    return {"median": float(np.median(seconds)), "largest": max(seconds)}


def _weigh(browser: Any, service: ServiceProcess) -> dict[str, int]:
    """Return the compressed size of the page's own files: for the first view, and for all views."""
    page = _open(browser, service)
    session, names, sizes = page.context.new_cdp_session(page), dict[str, str](), dict[str, int]()
    session.send("Network.enable")
    session.on("Network.requestWillBeSent", lambda event: names.update({event["requestId"]: event["request"]["url"]}))
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))

    def total() -> int:
        page.wait_for_timeout(1500)
        own = (f"{service.api.url}/web/", f"{service.api.url}/")
        return int(sum(size for id, size in sizes.items() if names[id].startswith(own[0]) or names[id] == own[1]))

    page.goto(f"{service.api.url}/")
    first = total()
    for view in VIEWS:
        page.evaluate("address => { location.hash = address }", f"#/{view}")
        page.wait_for_timeout(700)
    return {"first view": first, "all views": total()}


def _measure_changes(browser: Any, service: ServiceProcess, change: Change) -> dict[str, float]:
    """Return the seconds from the commit of a change until the page of the live job shows it."""
    page, seconds, pauses = _open(browser, service), [], random.Random(0)
    page.goto(f"{service.api.url}/#/jobs/{LIVE}{change.view}")
    page.wait_for_selector("text=● live")
    for number in range(1, CHANGES + 1):
        page.wait_for_timeout(pauses.uniform(500, 2000))  # in no step with the polling of the service and the page
        event = {"type": change.type, "data": change.data.replace("{number}", str(number)), "at": time.time()}
        metric = {"key": "train/metric_00", "step": 10_000 + number, "value": number}
        _write(service, [NUMBER, change.statement], {"id": LIVE, "name": f"change {number}"} | event | metric)
        started = time.perf_counter()
        page.wait_for_selector(change.shown.replace("{number}", str(number)))
        seconds.append(time.perf_counter() - started)
    page.context.close()
    return {"median": float(np.median(seconds)), "largest": max(seconds)}


def _watch_heap(browser: Any, service: ServiceProcess, minutes: float) -> list[int]:
    """Return the bytes of the tab's heap each minute, after a garbage collection, while it shows a live job."""
    page = _open(browser, service)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    stop = threading.Event()
    writer = threading.Thread(target=_write_steps, args=(service, stop.wait), daemon=True)
    writer.start()
    page.goto(f"{service.api.url}/#/jobs/{LIVE}/curves?{CHARTS}")
    page.wait_for_selector("main .chart canvas")
    heap = []
    for _ in range(int(minutes) + 1):
        page.wait_for_timeout(60_000)
        heap.append(_heap_bytes(session))
    stop.set()
    writer.join()
    return heap


def _write_steps(service: ServiceProcess, wait: Callable[[float], bool]) -> None:
    """Write a step each second until `wait` returns True."""
    for step in range(20_000, 100_000):
        with service.database.write() as session:
            values = {"id": LIVE, "at": time.time(), "step": step}
            session.execute(text(NEXT), values)
            session.execute(text(LOG), values)
            for number in range(KEYS):
                session.execute(text(STEP), values | {"key": f"train/metric_{number:02d}", "value": step % 97 / 97})
            session.commit()
        if wait(1):
            return


def _heap_bytes(session: CDPSession) -> int:
    session.send("HeapProfiler.collectGarbage")
    metrics = {item["name"]: item["value"] for item in session.send("Performance.getMetrics")["metrics"]}
    return int(metrics["JSHeapUsedSize"])


def _execute(service: ServiceProcess, statement: str, job_id: str) -> None:
    _write(service, [statement], {"id": job_id})


def _write(service: ServiceProcess, statements: list[str], values: dict[str, Any]) -> None:
    """Execute statements in one transaction."""
    with service.database.write() as session:
        for statement in statements:
            session.execute(text(statement), values)
        session.commit()


if __name__ == "__main__":
    main()
