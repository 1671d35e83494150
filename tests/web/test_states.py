"""What the page shows of jobs in each state; the jobs are the stub trainer's."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.web


def open_job(make_tab, site, name, tab=""):
    return make_tab().open(f"#/jobs/{site.jobs[name]}{tab}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("failed", "As the test requests."),
        ("paused", "Paused by admin; it holds no worker and continues from its checkpoint on resume."),
        ("cancelled", "A user cancelled it."),
        ("waiting", "The job requests 4 GPUs; no worker has more than 0."),
        ("dependent", "Job running, whose student this job uses, is running."),
    ],
)
def test_a_job_shows_why_it_does_not_run(make_tab, site, name, text):
    page = open_job(make_tab, site, name)
    assert text in page.locator("header").inner_text()


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("failed", ["Retry from scratch"]),
        ("paused", ["Resume", "Cancel"]),
        ("running", ["Pause", "Stop and keep", "Cancel"]),
    ],
)
def test_a_job_offers_the_actions_of_its_state(make_tab, site, name, actions):
    group = open_job(make_tab, site, name).get_by_role("group", name="Actions")
    for action in actions:
        expect(group.get_by_role("button", name=action, exact=True)).to_be_visible()


@pytest.mark.parametrize("view", ["#/jobs/{running}", "#/jobs"])
def test_the_question_before_a_cancel_names_the_jobs_that_will_fail(make_tab, site, view):
    page = make_tab().open(view.format(**site.jobs))
    if view == "#/jobs":
        page.get_by_role("row").filter(has=page.get_by_role("link", name="running", exact=True)).get_by_role(
            "checkbox"
        ).check()
    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("1 other job needs the student and will fail")).to_be_visible()
    expect(dialog.get_by_role("link", name="dependent")).to_be_visible()
    dialog.get_by_role("button", name="Back").click()


def test_a_bulk_action_says_how_many_jobs_it_changed_until_it_is_closed(make_tab, site):
    train = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "resources": {"devices": 4}}
    for name in ("bulk-1", "bulk-2"):
        site.client.post("/jobs", train | {"name": name})
    page = make_tab().open("#/jobs?name=bulk-")
    for name in ("bulk-1", "bulk-2"):
        page.get_by_role("row").filter(has=page.get_by_role("link", name=name)).get_by_role("checkbox").check()
    [first, _] = site.client.get("/jobs", name="bulk-")["data"]
    page.route(f"**/jobs/{first['id']}/cancel", lambda route: route.fulfill(status=503, json={"detail": "Not now."}))
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel", exact=True).click()
    outcome = page.get_by_role("alert").filter(has_text="1 of 2 jobs cancelled, 1 not.")
    expect(outcome.get_by_text(first["name"])).to_be_visible()
    outcome.get_by_role("button", name="Close").click()
    expect(outcome).to_have_count(0)
    for job in site.client.get("/jobs", name="bulk-")["data"]:
        if not job["is_terminal"]:
            site.client.post(f"/jobs/{job['id']}/cancel")


def test_the_overview_shows_the_gpus_and_hosts_that_a_job_waits_for(make_tab, site):
    train = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
    job = site.client.post("/jobs", train | {"name": "large", "resources": {"devices": 8, "nodes": 2}})
    page = make_tab().open("#/")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="large"))
    expect(row.get_by_role("cell", name="8, on each of 2 hosts", exact=True)).to_be_visible()
    expect(row.get_by_text("The job runs on 2 hosts")).to_be_visible()
    site.client.post(f"/jobs/{job['id']}/cancel")


def test_a_finished_job_offers_export_and_try_out(make_tab, site):
    page = make_tab().open(f"#/jobs/{site.jobs['baseline']}")
    page.get_by_role("link", name="Export, or try it on a picture").click()
    expect(page.get_by_role("heading", name="Exports for the device")).to_be_visible()
    expect(page.get_by_text("Start an export above: pictures are run on an exported file.")).to_be_visible()


def test_a_running_job_shows_its_steps_as_they_come(make_tab, site):
    page = open_job(make_tab, site, "running")
    before = page.get_by_text("of the training").inner_text()
    expect(page.get_by_text("of the training")).not_to_have_text(before)
    assert "step" in before and " left" not in before, "the stub estimates no remaining time"


def test_another_phase_shows_its_own_progress_and_no_remaining_time(make_tab, site):
    """The answer of the API is altered, because phases of the small jobs are over in a moment."""
    page, job_id = make_tab().page, site.jobs["running"]
    progress = {"epoch": 1, "epochs": 1, "step": 7, "steps": 7, "fraction": 1.0, "phase_fraction": 0.25}
    phase = {"phase": "evaluating", "progress": progress | {"eta_seconds": 0.0, "images_per_second": 9.0}}
    page.route(f"**/jobs/{job_id}", lambda route: route.fulfill(json=site.client.get(f"/jobs/{job_id}") | phase))
    page.route(f"**/jobs/{job_id}/stream**", lambda route: route.abort())
    page.goto(site.address(f"#/jobs/{job_id}"))
    expect(page.locator("header").get_by_text("Now: evaluating 25")).to_be_visible()
    assert " left" not in page.locator("header").inner_text() and "images/s" not in page.locator("header").inner_text()


def test_a_trained_job_without_a_teacher_has_a_detector_and_no_student(make_tab, site):
    allowed = re.compile(r"student[:.]|Distil a student from it")  # the YAML, names of files, the next step
    for tab in ("", "/curves", "/verdict", "/files"):
        page = open_job(make_tab, site, "long", tab)
        page.locator("main .card").nth(1).wait_for()
        charts = page.locator("[role=img]").evaluate_all("items => items.map(item => item.ariaLabel).join()")
        assert "student" not in allowed.sub("", page.locator("main").inner_text() + charts).lower(), tab


def test_many_rows_of_metrics_are_drawn_and_thinned_out(make_tab, site):
    tab = make_tab()
    page = tab.open(f"#/jobs/{site.jobs['long']}/curves")
    chart = page.locator("[role=img][aria-label^='Loss of training']")
    expect(chart.locator("canvas")).to_be_visible()
    assert tab.problems == []


def test_the_lists_show_all_states(make_tab, site):
    page = make_tab().open("#/jobs")
    for name in ("running", "paused", "failed", "cancelled"):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
        expect(row.locator(f".status.{name}")).to_be_visible()
    expect(page.get_by_text("out of memory")).to_be_visible()
