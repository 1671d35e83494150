"""The OpenAPI document; tests/hostile/test_hostile_contract.py checks that the service conforms to it."""

import pytest

from api.http.auth_middleware import PUBLIC_PATHS


@pytest.fixture
def operations(app):
    """By method and path."""
    paths = app.openapi()["paths"]
    return {(method, path): operation for path, methods in paths.items() for method, operation in methods.items()}


def test_every_operation_has_a_summary_and_a_description(operations):
    assert len(operations) > 40
    for key, operation in operations.items():
        description = operation["description"].partition("Requires a key")[0].strip()
        assert operation["summary"], key
        assert len(description) > 10, key


def test_every_operation_lists_its_possible_errors(operations):
    for (method, path), operation in operations.items():
        statuses = operation["responses"].keys()
        assert "default" not in statuses
        assert {"400", "500", "503"} <= statuses
        assert ({"401", "429"} <= statuses) == (path not in PUBLIC_PATHS), path
        assert ("404" in statuses) >= ("{" in path), path
        assert ("409" in statuses) == (method != "get"), path
        assert ("422" in statuses) >= ("requestBody" in operation), path


def test_all_errors_have_the_same_schema(app, operations):
    document = app.openapi()
    problem = {"$ref": "#/components/schemas/ProblemDetails"}
    for operation in operations.values():
        for status, response in operation["responses"].items():
            if status >= "400":
                resolved = (
                    document["components"]["responses"][response["$ref"].rpartition("/")[2]]
                    if "$ref" in response
                    else response
                )
                assert resolved["content"]["application/problem+json"]["schema"] == problem
                assert resolved["description"]
    assert "detail" in document["components"]["schemas"]["ProblemDetails"]["required"]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("get", "/jobs", "read"),
        ("post", "/jobs", "submit"),
        ("get", "/metrics", "metrics"),
        ("get", "/api-keys", "admin"),
        ("post", "/api-keys", "admin"),
    ],
)
def test_the_required_scope_of_an_operation_is_documented(operations, method, path, scope):
    operation = operations[method, path]
    assert operation["description"].endswith(f"Requires a key with the scope `{scope}`.")
    assert "403" in operation["responses"]


def test_public_operations_have_no_security_requirement(operations):
    assert all(
        (operation.get("security") == []) == (path in PUBLIC_PATHS) for (_, path), operation in operations.items()
    )


def test_range_requests_of_files_are_documented(operations):
    operation = operations["get", "/checkpoints/{checkpoint_id}/content"]
    assert {"200", "206", "304", "416"} <= operation["responses"].keys()
    assert {"range", "if-none-match"} <= {parameter["name"] for parameter in operation["parameters"]}
