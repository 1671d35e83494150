"""Signing in, lost keys, lost connections, and changes that others make."""

import signal

import pytest

pytestmark = pytest.mark.web


def test_signing_in_keeps_the_key_in_the_tab_and_out_of_the_address(make_tab, site):
    tab = make_tab(key=None)
    page = tab.page
    page.goto(site.address("#/jobs"))
    page.get_by_label("API key").fill(site.api.key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("distilled").first.wait_for()
    assert site.api.key not in page.url
    assert page.evaluate("localStorage.length") == 0 and page.context.cookies() == []
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_wrong_key_is_refused_with_the_reason(make_tab, site):
    page = make_tab(key=None).page
    page.goto(site.address(""))
    page.get_by_label("API key").fill("frs_wrong")
    page.get_by_role("button", name="Sign in").click()
    assert "key" in page.get_by_role("alert").inner_text()


def test_a_revoked_key_leads_to_the_sign_in(make_tab, site):
    key = site.client.post("/api-keys", {"name": "visitor", "owner": "visitor", "scopes": ["read"]})
    tab = make_tab(key=key["token"])
    page = tab.open("#/")
    site.client.delete(f"/api-keys/{key['id']}")
    page.get_by_label("API key").wait_for(timeout=30_000)
    assert "revoked" in page.get_by_role("alert").inner_text() or "valid" in page.get_by_role("alert").inner_text()


def test_a_change_by_someone_else_is_shown_without_a_reload(make_tab, site):
    page = make_tab().open(f"#/jobs/{site.jobs['waiting']}")
    page.evaluate("window.isSamePage = true")
    site.client.patch(f"/jobs/{site.jobs['waiting']}", {"name": "renamed by a colleague"})
    page.get_by_text("renamed by a colleague").first.wait_for()
    assert page.evaluate("window.isSamePage")
    site.client.patch(f"/jobs/{site.jobs['waiting']}", {"name": "waiting"})


def test_the_page_survives_a_restart_of_the_api(make_tab, site):
    page = make_tab().open(f"#/jobs/{site.jobs['waiting']}")
    page.evaluate("window.isSamePage = true")
    site.api.stop(signal.SIGKILL)
    page.get_by_text("reconnecting").first.wait_for()
    site.api.start()
    site.client.patch(f"/jobs/{site.jobs['waiting']}", {"name": "changed after the restart"})
    page.get_by_text("changed after the restart").first.wait_for()
    assert page.evaluate("window.isSamePage")
    site.client.patch(f"/jobs/{site.jobs['waiting']}", {"name": "waiting"})
