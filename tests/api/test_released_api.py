"""What the last release named in its API, this version names, too."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("api_surface", Path(__file__).parents[2] / ".ci" / "api_surface.py")
assert _spec and _spec.loader
api_surface = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(api_surface)


def test_no_operation_parameter_or_field_of_the_last_release_is_missing(app):
    released = set(api_surface.RELEASED.read_text().splitlines())
    removed = sorted(released - set(api_surface.names(app.openapi())))
    assert not removed, "see docs/versions.md, and run .ci/api_surface.py at the release"


def test_a_removed_value_of_a_field_is_found():
    def document(*values: str) -> dict:
        state = {"anyOf": [{"type": "string", "enum": list(values)}, {"type": "null"}]}
        operation = {"parameters": [{"name": "limit"}]}
        schemas = {"Job": {"properties": {"state": state}}, "Kind": {"enum": ["train"]}}
        return {"paths": {"/jobs": {"get": operation}}, "components": {"schemas": schemas}}

    names = set(api_surface.names(document("queued", "running")))
    assert names >= {"GET /jobs", "GET /jobs ?limit", "Job.state", "Kind = train"}
    assert names - set(api_surface.names(document("queued"))) == {"Job.state = running"}
