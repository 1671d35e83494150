"""Generated pages are current, the site lists every page, and retired names are found."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from frs.spec import JobSpec
from store.settings import Settings
from store.settings_report import unknown_variables

ROOT = Path(__file__).parents[2]


def load(path: str):
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_job_spec_is_current():
    page = load("docs/spec.py").page(JobSpec.model_json_schema())
    assert (ROOT / "docs" / "spec.md").read_text() == page, "run `make docs`"


def test_the_page_of_the_settings_is_current():
    assert (ROOT / "docs" / "settings.md").read_text() == load("docs/settings.py").page(), "run `make docs`"


def test_a_process_reads_every_setting():
    readers = load("docs/settings.py").readers
    assert [name for name in Settings.model_fields if not readers(name)] == []


def test_settings_in_alerts_and_pages_exist():
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "docker/monitoring/alerts.yml"]
    named = {name: "" for page in pages for name in re.findall(r"\bFRS_[A-Z_]+[A-Z]\b", page.read_text())}
    assert len(named) > 30
    assert [message for message in unknown_variables(named) if not re.search("FRS_(TEST_DATA|SEED) ", message)] == []


def test_every_spec_field_is_described():
    schema = JobSpec.model_json_schema()
    undescribed = [
        f"{name}.{field}"
        for name, model in {"JobSpec": schema, **schema["$defs"]}.items()
        for field, value in model["properties"].items()
        if not value.get("description")
    ]
    assert undescribed == []


def test_the_site_lists_every_page():
    listed = re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text())
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


@pytest.mark.parametrize("line", ["told = 1", "def _told(): ...", "clip_norm: 10", "# the Errand"])
def test_a_retired_name_is_found(line):
    script = load(".ci/retired_names.py")
    assert script.pattern_of(["told", "clip_norm", "Errand"]).search(line)


@pytest.mark.parametrize("line", ["untold = 1", "Errands", "max_grad_norm: 10"])
def test_a_word_that_contains_a_retired_name_is_not_found(line):
    script = load(".ci/retired_names.py")
    assert not script.pattern_of(["told", "clip_norm", "Errand"]).search(line)


def test_the_workflow_and_the_issue_forms_are_yaml():
    for path in [*(ROOT / ".github").rglob("*.yml"), *(ROOT / "examples").glob("*.yml")]:
        assert yaml.safe_load(path.read_text())
    assert "bash .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()


def test_every_make_target_has_help():
    lines = (ROOT / "Makefile").read_text().splitlines()
    phony = next(line for line in lines if line.startswith(".PHONY")).split()[1:]
    described = {line.partition(":")[0] for line in lines if re.match(r"[\w-]+:.*## ", line)}
    assert set(phony) == described
    assert subprocess.run(["make", "-n", "check"], cwd=ROOT, capture_output=True).returncode == 0
