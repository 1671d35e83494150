"""Files of the Helm chart that need no Helm to be checked; `make test-deploy` renders the chart."""

import re
import tomllib
from pathlib import Path

import yaml
from test_docs import load

from store.settings_report import unknown_variables

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "frs"


def test_kedas_query_is_that_of_the_store():
    assert (CHART / "files" / "claimable.sql").read_text() == load(".ci/claimable_sql.py").template(), (
        "run `PYTHONPATH=. .venv/bin/python .ci/claimable_sql.py`"
    )


def test_the_chart_has_the_version_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_the_schema_names_every_value():
    values, schema = (
        yaml.safe_load((CHART / "values.yaml").read_text()),
        yaml.safe_load((CHART / "values.schema.json").read_text()),
    )
    assert values.keys() == schema["properties"].keys() - {"global"}


def test_settings_that_the_chart_and_the_slurm_script_name_exist():
    files = [*CHART.rglob("*.yaml"), *CHART.rglob("*.tpl"), *CHART.rglob("*.json"), *ROOT.glob("deploy/slurm/*")]
    named = {name: "" for file in files for name in re.findall(r"\bFRS_[A-Z_]+[A-Z]\b", file.read_text())}
    assert len(named) > 10
    assert list(unknown_variables(named)) == []
