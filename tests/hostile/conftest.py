"""The fixtures of tests/api."""

import importlib.util
import sys
from pathlib import Path

_file = Path(__file__).parents[1] / "api" / "conftest.py"
_spec = importlib.util.spec_from_file_location("api_fixtures", _file)
assert _spec and _spec.loader
api_fixtures = sys.modules["api_fixtures"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(api_fixtures)
for _fixture in ("template", "settings", "app", "service", "refusing", "shapes"):
    globals()[_fixture] = getattr(api_fixtures, _fixture)
