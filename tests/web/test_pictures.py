"""Boxes on pictures, and lists of pictures."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.web


def test_boxes_have_a_colour_for_each_class_which_the_legend_names(make_tab):
    page = make_tab().open("#/datasets/shapes/pictures?split=train")
    page.locator("svg.boxes image ~ rect.box").first.wait_for(state="attached")
    legend = page.locator(".legend .swatch").evaluate_all("items => items.map(item => item.style.background)")
    strokes = page.locator("rect.box").evaluate_all("boxes => boxes.map(box => getComputedStyle(box).stroke)")
    assert len(set(legend)) == 4, "the data set has four classes"
    assert set(strokes) == set(legend)


def test_a_box_shows_its_class_when_it_is_pointed_at(make_tab):
    page = make_tab().open("#/datasets/shapes/pictures?split=train")
    picture = page.locator("svg.boxes").filter(has=page.locator("rect.box")).first
    expect(picture.locator("text")).to_have_count(0)
    picture.locator("rect.box").last.hover()
    expect(picture.locator("text")).to_have_text(re.compile("^(circle|square|triangle|star)$"))


def test_all_pictures_of_a_split_can_be_reached_from_their_count(make_tab):
    page = make_tab().open("#/datasets/shapes/pictures?split=train")
    expect(page.get_by_text("24 of 48 images are loaded")).to_be_visible()
    page.get_by_role("button", name="Load 24 more").first.click()
    expect(page.get_by_text("48 images", exact=True)).to_be_visible()
    expect(page.locator(".picture")).to_have_count(48)
