"""Each view of the page: without console errors, without requests to other hosts, and accessible."""

import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.web
VIEWS = {
    "overview": ("#/", "text=4 GPUs"),
    "jobs": ("#/jobs", "tbody tr"),
    "job": ("#/jobs/{distill}", ".history tbody tr"),
    "job-waiting": ("#/jobs/{waiting}", "text=4 GPUs"),
    "curves": ("#/jobs/{distill}/curves", ".chart canvas"),
    "verdict": ("#/jobs/{distill}/verdict", ".chart canvas"),
    "running": ("#/jobs/{running}", "text=of the training"),
    "images": ("#/jobs/{distill}/pictures", "svg.boxes image ~ rect.box"),
    "precision-recall": ("#/jobs/{distill}/pictures?part=precision-recall", ".chart canvas"),
    "confusion": ("#/jobs/{distill}/pictures?part=confusion", ".matrix td.right"),
    "richness": ("#/jobs/{distill}/pictures?part=richness", ".overlay canvas"),
    "files": ("#/jobs/{distill}/files", "td >> text=student.onnx"),
    "log": ("#/jobs/{distill}/log", ".log .line.info"),
    "new-job": ("#/new?recipe=shapes_gfl", ".checks li"),
    "datasets": ("#/datasets", "td >> text=shapes"),
    "dataset": ("#/datasets/shapes", ".chart canvas"),
    "dataset-pictures": ("#/datasets/shapes/pictures?split=train", "svg.boxes image ~ rect.box"),
    "detectors": ("#/detectors", "td >> text=delivered"),
    "compare": ("#/compare?jobs={distill},{baseline}", ".chart canvas"),
    "sweeps": ("#/sweeps", "td >> text=rates"),
    "sweep": ("#/sweeps/{sweep}", ".chart canvas"),
    "new-sweep": ("#/sweeps/new", "textarea"),
    "webhooks": ("#/keys/webhooks", "td >> text=hooks.invalid"),
    "recipes": ("#/recipes", "text=shapes_gfl"),
    "keys": ("#/keys", "tbody tr"),
}
"""View: its address, and what is drawn from its data."""
HOSTILE = "<img src=x onerror=alert(1)>"
"""Name of a class of the data set `hostile`, and metadata of the job `waiting`; see `conftest.py`."""
CUT_TABLES = """[...document.querySelectorAll(".scroll")].filter(region => region.scrollWidth > region.clientWidth + 1)
 .map(region => region.ariaLabel)"""
SCREENSHOTS = os.environ.get("FRS_SCREENSHOTS")
"""Folder that pictures of all views are written to; `make screenshots` sets it."""


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_shows_its_data_without_errors_and_is_accessible(make_tab, site, name):
    tab = make_tab()
    address, expected = VIEWS[name]
    page = tab.open(address.format(**site.jobs))
    page.locator(expected).first.wait_for(state="attached")
    violations = Axe().run(page).response["violations"]
    assert [
        (item["id"], item["nodes"][0]["html"]) for item in violations if item["impact"] in ("serious", "critical")
    ] == []
    assert tab.problems == []
    assert page.evaluate(CUT_TABLES) == [], "tables that are wider than the page at 1280 px"
    if SCREENSHOTS:
        page.wait_for_timeout(800)  # for charts and images
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("name", ["overview", "jobs", "verdict", "new-job"])
def test_a_view_is_readable_on_a_narrow_dark_screen(make_tab, site, name):
    tab = make_tab(viewport={"width": 400, "height": 800}, color_scheme="dark")
    address, expected = VIEWS[name]
    page = tab.open(address.format(**site.jobs))
    page.locator(expected).first.wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400, "no sideways scrolling of the whole page"
    violations = Axe().run(page).response["violations"]
    assert [
        (item["id"], item["nodes"][0]["html"]) for item in violations if item["impact"] in ("serious", "critical")
    ] == []


@pytest.mark.parametrize(
    "address", ["#/datasets/hostile", "#/datasets/hostile/pictures?split=train", "#/jobs/{waiting}"]
)
def test_names_from_users_stay_text(make_tab, site, address):
    tab = make_tab()
    page = tab.open(address.format(**site.jobs))
    page.get_by_text(HOSTILE).first.wait_for(state="attached")
    assert page.locator("img[src='x']").count() == 0
    assert tab.problems == []
