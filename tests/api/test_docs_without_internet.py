"""`/docs` works without internet access: page, style and program come from the service, under a strict policy."""

import re

import pytest

FILES = ["/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"]


@pytest.fixture(scope="module")
def page(shared_service):
    return shared_service.client.get("/docs", headers={"Authorization": ""})


def test_the_page_refers_to_no_other_host(page):
    assert not re.findall(r"https?:|//", page.text.replace("<!--", ""))


def test_every_file_of_the_page_is_served_without_a_key(page, shared_service):
    addresses = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
    assert sorted(f"/{address}" for address in addresses) == FILES, "relative, so that a proxy's prefix is kept"


@pytest.mark.parametrize(("path", "media_type"), zip(FILES, ["text/javascript"] * 2 + ["text/css"], strict=True))
def test_a_file_has_its_media_type(shared_service, path, media_type):
    response = shared_service.client.get(path, headers={"Authorization": ""})
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, media_type)
    assert response.content


def test_the_policy_forbids_other_hosts_and_inline_scripts(page):
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    assert not re.search(r"<script>|\son\w+=|style=", page.text)


def test_no_specification_is_sent_to_a_validator(shared_service):
    script = shared_service.client.get("/docs/start.js").text
    assert "validatorUrl: null" in script and 'url: "openapi.json"' in script


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/index.html", "/docs/../jobs", "/docs/redoc.standalone.js", "/docs/x"]
)
def test_nothing_else_below_docs_is_public(shared_service, path):
    assert shared_service.client.get(path, headers={"Authorization": ""}).status_code == 401
