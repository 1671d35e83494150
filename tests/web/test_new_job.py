"""The form of a new job."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.web


def test_a_teacher_can_be_chosen_by_its_mAP(make_tab, site):
    mAP = site.client.get("/detectors")["data"][0]["mAP"]
    page = make_tab().open("#/detectors")
    expect(
        page.get_by_role("row").filter(has_text="delivered").get_by_text(f"{100 * mAP:.1f}", exact=True)
    ).to_be_visible()
    page = make_tab().open("#/new?recipe=edge_student")
    labels = page.locator("datalist option").evaluate_all("options => options.map(option => option.textContent)")
    assert any(f"distilled, mAP {100 * mAP:.1f}" in label for label in labels)
