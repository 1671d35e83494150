"""Path traversal in every field and path parameter: no file outside the data folder is opened or returned."""

from itertools import product
from typing import Any

import pytest
from audit_hook import AuditHook
from pydantic import ValidationError
from request_places import BODIES, Request, places, with_parameter, with_value

from api.datasets.schemas import DatasetCreate
from api.detectors.schemas import DetectorCreate
from frs.spec import JobSpec

SECRET = "canary-outside-41d2"
MODELS: dict[str, Any] = {"/jobs": JobSpec, "/datasets": DatasetCreate, "/detectors": DetectorCreate}
audit_hook = AuditHook()


def strings(outside: str) -> list[str]:
    ups = (
        "../",
        "..\\",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%252f",
        "%c0%ae%c0%ae/",
        "..;/",
        "....//",
        ".../",
        "..\u2215",
        "..\uff0f",
        "\uff0e\uff0e/",
        "./../",
        "x/../../",
        ". ./",
        "..\0/",
        "..\n/",
        "%252e%252e%252f",
        "..%00/",
    )
    targets = ("etc/passwd", "secret.pth", "frs.db", "api-key", "broker/messages", "datasets/../../secret.pth")
    climbing = [up * depth + target for up, target in product(ups, targets) for depth in (1, 6)]
    absolute = [
        "/etc/passwd",
        "//etc/passwd",
        "///etc//passwd",
        "/./etc/passwd",
        "~",
        "~root/.ssh/id_rsa",
        "~/.ssh",
        outside,
        f"/{outside}",
        f"file://{outside}",
        f"{outside}\0.pth",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/dev/zero",
        "/dev/stdin",
    ]
    strange = [
        ".",
        "..",
        "...",
        "/",
        "//",
        "\\",
        "",
        " ",
        "\0",
        "\n",
        "CON",
        "NUL",
        "C:\\x",
        "C:x",
        "\\\\?\\C:\\x",
        "x" * 5000,
        "a/" * 2000,
        "link",
        "link/secret.pth",
        "shapes/link",
        "teacher.pth/",
        "teacher.pth/..",
        "teacher.pth\0",
        "-rf",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "$HOME",
        "`id`",
        "a|b",
        "\u202e",
        "\ufeff",
        "é",
        "e\u0301",
        "shapes/../shapes",
    ]
    return [*climbing, *absolute, *strange]


@pytest.fixture(autouse=True)
def ignore_other_threads() -> None:
    """Runs before the service starts, whose threads are recorded."""
    audit_hook.ignore_current_threads()


@pytest.fixture
def outside(service) -> str:
    """A file next to the data folder, and symbolic links to it in the data folder."""
    service.client.app.state.context.wakeups.close()  # its thread writes to the broker folder at any time
    root = service.settings.data.parent
    (root / "secret.pth").write_text(SECRET)
    for folder in (
        service.settings.models_root,
        service.settings.datasets_root,
        service.settings.datasets_root / "shapes",
    ):
        (folder / "link").symlink_to(root, target_is_directory=True)
    (service.settings.models_root / "linked.pth").symlink_to(root / "secret.pth")
    return str(root / "secret.pth")


def send(service, request: Request) -> None:
    with audit_hook.record([service.settings.data]) as events:
        response = service.client.request(request.method, request.path, json=request.body)
    assert response.status_code < 500, (request, response.text)
    assert not events, (request, events)
    assert SECRET not in response.text and "root:x:" not in response.text


def test_no_string_escapes_the_folders(service, shapes, outside):
    tried, valid = 0, 0
    texts = strings(outside)
    assert len(texts) >= 250
    for number, (text, (path, body)) in enumerate(product(texts, BODIES)):
        for place in places(body):
            tried += 1
            changed = with_value(body, place, text)
            try:
                MODELS[path].model_validate(changed)
                valid += 1
                is_sent = valid % 7 == 0 or place[-1] not in (0, "key", "metadata")
            except ValidationError:
                is_sent = (tried + number) % 101 == 0
            if is_sent:
                send(service, Request("POST", path, place, changed))
    assert tried > 20_000 and valid > 200


def test_no_path_parameter_escapes_its_route(service, shapes, outside):
    for number, text in enumerate(strings(outside)):
        for request in list(with_parameter(text))[number % 4 :: 4]:
            send(service, request)


@pytest.mark.parametrize("weights", ["linked.pth", "link/secret.pth", "teacher.pth/../linked.pth"])
def test_a_link_out_of_the_folder_is_not_followed(service, outside, weights):
    body = {"name": "x", "description": {"architecture": "gfl"}, "weights": weights}
    response = service.client.post("/detectors", json=body)
    assert response.status_code == 422 and SECRET not in response.text
