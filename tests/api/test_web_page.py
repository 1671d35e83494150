"""The page's files: served without a key, under a strict policy, from this service alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
SOURCES = [path for path in sorted(WEB.rglob("*.js")) if path.parent.name != "vendor"]


@pytest.fixture
def get(shared_service):
    """Return a function that gets a path without a key."""

    def get(path, **headers):
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return shared_service.client.get(path, headers={"Authorization": "", **names})

    return get


def test_the_page_and_its_files_need_no_key(get):
    page = get("/")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.headers["content-type"].startswith("text/html") and "web/main.js" in addresses
    for address in addresses:
        assert get(f"/{address}").status_code == 200, "relative, so that a proxy's prefix is kept"


def test_the_policy_allows_neither_other_hosts_nor_inline_code(get):
    for path in ("/", "/web/main.js"):
        headers = get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert policy["connect-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script>|\son\w+=|\sstyle=", (WEB / "index.html").read_text())


def test_files_are_compressed_and_revalidated(get):
    first = get("/web/vendor/echarts.js", accept_encoding="gzip")
    assert first.headers["content-encoding"] == "gzip" and first.headers["cache-control"] == "no-cache"
    again = get("/web/vendor/echarts.js", if_none_match=first.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/web/nothing.js", "/web/", "/web/%2e%2e/pyproject.toml", "/web/..%2fapi/app.py"])
def test_nothing_else_is_served(get, path):
    assert get(path).status_code in (401, 404)


def test_only_the_vendored_files_of_the_manifest_are_there():
    check = subprocess.run([sys.executable, ROOT / ".ci" / "vendor.py", "--check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(WEB)))
def test_a_module_makes_no_html_from_text_and_imports_existing_files(path):
    source = path.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source)
    code = re.sub(r"/\*.*?\*/", "", source, flags=re.S)
    static = re.findall(r'^(?:import|export)\b[^"]*\bfrom "([^"]+)";$', code, flags=re.M)
    for address in static + re.findall(r'\bimport\("([^"]+)"\)', code):
        assert address.startswith(".") and (path.parent / address).is_file(), address


@pytest.mark.parametrize("path", ["/", "/web/app.js"])
@pytest.mark.parametrize("value", ["max_invalid_fraction", "bytes=9-1", "bytes=0-3"])
def test_a_range_is_ignored(shared_service, path, value):
    whole = shared_service.client.get(path)
    response = shared_service.client.get(path, headers={"Range": value})
    assert (response.status_code, response.content) == (200, whole.content)
