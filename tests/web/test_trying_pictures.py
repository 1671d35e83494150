"""Trying exported files on pictures: the export that a format lacks, and how its end is shown."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.web
STUDENT, FORMAT = "Student", "onnx-no-nms"


@pytest.fixture
def student(make_tab, site):
    """Return the page and the student's figure on a picture, for a format that no export has."""
    page = make_tab().open(f"#/jobs/{site.jobs['distill']}/files?format={FORMAT}")
    page.get_by_role("button", name="Take the next validation image").click()
    figure = page.locator("figure.found").filter(has=page.get_by_text(STUDENT, exact=True))
    expect(figure.get_by_text(f"There is no exported {FORMAT} file")).to_be_visible()
    return page, figure


def answer_export(page, site, **changes):
    """Let the page's export of the student be the site's with the changes; return the list of what the page posts."""
    export, posted = site.client.get(f"/jobs/{site.jobs['export']}"), []

    def start(route):
        posted.append(route.request.post_data_json)
        route.fulfill(json=export | {"status": "queued", "is_terminal": False})

    page.route(f"**/jobs/{site.jobs['distill']}/exports", start)
    page.route(f"**/jobs/{export['id']}", lambda route: route.fulfill(json=export | changes))
    return posted


def test_the_format_that_is_tried_is_exported_and_then_run(site, student):
    page, figure = student
    posted = answer_export(page, site)
    prediction = {"width": 96, "height": 96, "results": [{"objects": [], "milliseconds": 3.0}]}
    figure.get_by_role("button", name="Export it now").wait_for()
    page.route(f"**/jobs/{site.jobs['distill']}/predict?**", lambda route: route.fulfill(json=prediction))
    figure.get_by_role("button", name="Export it now").click()
    expect(figure.get_by_text("0 objects, 3.00 ms")).to_be_visible()
    assert posted == [{"formats": [FORMAT]}]


def test_an_export_whose_file_is_gone_can_be_repeated(site, student):
    page, figure = student
    answer_export(page, site)
    figure.get_by_role("button", name="Export it now").click()
    with page.expect_response("**/predict?**"):
        pass
    expect(figure.get_by_role("button", name="Export it now")).to_be_visible()
    expect(figure.get_by_text("is succeeded")).to_have_count(0)


def test_a_failed_export_shows_its_error_and_can_be_repeated(site, student):
    page, figure = student
    error = {"message": "It broke.", "hint": "Mend it."}
    answer_export(page, site, status="failed", error=error)
    figure.get_by_role("button", name="Export it now").click()
    expect(figure.get_by_text("is failed. It broke. Mend it.")).to_be_visible()
    expect(figure.get_by_role("button", name="Export it now")).to_be_visible()
    page.get_by_role("combobox", name="File").select_option("onnx")
    expect(figure.get_by_text("objects")).to_be_visible()


def test_an_export_offers_the_formats_that_it_has(make_tab, site):
    page = make_tab().open(f"#/jobs/{site.jobs['export']}/files?format={FORMAT}")
    assert page.get_by_role("combobox", name="File").locator("option").all_inner_texts() == ["fp32 (onnx)"]
    page.get_by_role("button", name="Take the next validation image").click()
    expect(page.get_by_text("objects, ").or_(page.get_by_text("object, ")).first).to_be_visible()


def test_an_export_of_a_registered_detector_shows_its_files(make_tab, site):
    """The answer of the API is altered: the job exported the student by its name."""
    page, export = make_tab().page, site.client.get(f"/jobs/{site.jobs['export']}")
    spec = export["spec"] | {"student": {"detector": "delivered"}}
    page.route(f"**/jobs/{export['id']}", lambda route: route.fulfill(json=export | {"spec": spec}))
    page.goto(site.address(f"#/jobs/{export['id']}/files"))
    expect(page.get_by_role("table", name="Exported files").get_by_text("student.onnx")).to_be_visible()
