"""The form of a new job."""

import pytest
import yaml
from playwright.sync_api import expect

pytestmark = pytest.mark.web


def test_a_teacher_can_be_chosen_by_its_mAP(make_tab, site):
    mAP = site.client.get("/detectors")["data"][0]["mAP"]
    page = make_tab().open("#/detectors")
    expect(
        page.get_by_role("row").filter(has_text="delivered").get_by_text(f"{100 * mAP:.1f}", exact=True)
    ).to_be_visible()
    page = make_tab().open("#/new?recipe=edge_student")
    choice = page.locator("#field-teacher-job")
    labels = choice.locator("option").all_inner_texts()
    assert labels[0] == "choose a teacher" and f"distilled, shapes, mAP {100 * mAP:.1f}, succeeded" in labels
    assert not any("failed" in label for label in labels), "its student would be refused"
    choice.select_option(label=next(label for label in labels if label.startswith("distilled,")))
    expect(page.get_by_role("region", name="Plan").get_by_text("The job can be submitted")).to_be_visible()


def test_an_empty_teacher_is_answered_with_what_to_choose(make_tab):
    page = make_tab().open("#/new?recipe=edge_student&dataset=shapes")
    expect(page.get_by_text("choose one of the list of jobs").first).to_be_visible()
    assert "pattern" not in page.locator("main").inner_text()


def test_a_teacher_that_is_not_listed_can_be_named_by_its_id(make_tab):
    page = make_tab().open("#/new?recipe=edge_student")
    choice = page.locator("#field-teacher-job")
    choice.select_option(label="another, by its id")
    choice.fill(f"job_{'0' * 26}")
    expect(page.get_by_text("There is no job of this id.").first).to_be_visible()
    page.get_by_role("button", name="Choose from the list").click()
    expect(choice.locator("option").first).to_have_text("choose a teacher")


def write_spec(page, text):
    page.get_by_role("link", name="YAML").click()
    page.get_by_label("Job spec as YAML or JSON").fill(text)


def test_a_plan_warns_that_no_worker_has_the_weights_to_start_from(make_tab):
    page = make_tab().open("#/new")
    student = "{architecture: gfl, backbone: {type: ghostnet_100}, init: imagenet}"
    write_spec(page, f"{{kind: train, dataset: shapes, student: {student}}}")
    plan = page.get_by_role("region", name="Plan")
    expect(plan.get_by_text("The job can be submitted, with 1 warning.")).to_be_visible()
    expect(plan.get_by_text("lacks the ImageNet weights ghostnet_100.in1k.safetensors")).to_be_visible()
    expect(plan.get_by_text("frs models pull")).to_be_visible()


def test_a_student_starts_with_data_set_image_size_and_epochs_of_its_teacher(make_tab, site):
    teacher = site.client.get(f"/jobs/{site.jobs['baseline']}")["spec"]
    page = make_tab().open(f"#/new?recipe=edge_student&teacher={site.jobs['baseline']}")
    expect(page.get_by_text("Data set, image size and epochs are the teacher's.")).to_be_visible()
    page.get_by_role("link", name="YAML").click()
    spec = yaml.safe_load(page.get_by_label("Job spec as YAML or JSON").input_value())
    assert spec["schedule"]["image_size"] == teacher["schedule"]["image_size"] != [320, 320]
    assert spec["schedule"]["epochs"] == teacher["schedule"]["epochs"] == 8
    assert (spec["dataset"], spec["teacher"]) == ("shapes", {"job": site.jobs["baseline"]})
    assert spec["schedule"]["batch_size"] == 8, "the recipe's, which its learning rate belongs to"


def test_a_measurement_stays_while_unrelated_fields_change_and_other_views_are_shown(make_tab):
    page = make_tab().open("#/new?recipe=small_teacher&dataset=shapes")
    expect(page.get_by_text("How long it takes is not measured yet.")).to_be_visible()
    page.get_by_role("button", name="Measure on a worker").click()
    expect(page.get_by_text("Takes about")).to_be_visible(timeout=120_000)
    page.locator("#field-name").fill("renamed")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("heading", name="Jobs").wait_for()
    page.go_back()
    expect(page.locator("#field-name")).to_have_value("renamed")
    expect(page.get_by_text("Takes about")).to_be_visible()
    page.locator("#field-schedule-batch_size").fill("2")
    expect(page.get_by_text("Not measured yet for this spec.")).to_be_visible()
    expect(page.get_by_text("Measured before, with other settings")).to_be_visible()
    page.locator("#field-schedule-batch_size").fill("")


def test_the_page_says_why_nothing_can_be_measured(make_tab, site):
    page = make_tab().open("#/new")
    expect(page.get_by_text("Choose a data set and a detector first.")).to_be_visible()
    page = make_tab().open(f"#/new?recipe=edge_student&dataset=shapes&teacher={site.jobs['running']}")
    expect(page.get_by_text("The job whose student it uses has not ended: measure after it.")).to_be_visible()
