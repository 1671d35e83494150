"""Every place of a request that can contain a string: spec and body fields, path and query parameters, headers."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

Body = dict[str, Any]
ID = "0" * 26
JOB: Body = {
    "name": "a job",
    "kind": "distill",
    "method": "frs",
    "dataset": "shapes",
    "unlabelled": "shapes",
    "teacher": {"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py", "init": "random"},
    "student": {
        "architecture": "gfl",
        "backbone": {"type": "ResNet", "depth": 18, "width": 8, "norm": "gn"},
        "neck_channels": 16,
        "init": "random",
    },
    "schedule": {
        "max_steps": 1,
        "batch_size": 2,
        "image_size": [64, 64],
        "optimizer": {"name": "adamw"},
        "lr_schedule": {"name": "cosine", "warmup_steps": "auto"},
        "precision": "fp32",
    },
    "distillation": {
        "feature_weight": "auto",
        "logit_weight": "auto",
        "warmup_steps": "auto",
        "adapter": "1x1",
        "teacher_cache": "off",
    },
    "tags": ["a tag"],
    "metadata": {"key": "value"},
}
REFERENCES: tuple[Body, ...] = (
    JOB | {"teacher": {"detector": "teacher"}},
    JOB | {"teacher": {"job": f"job_{ID}"}},
    JOB | {"teacher": {"architecture": "gfl", "init": {"weights": "teacher.pth"}}},
    JOB | {"student": {"architecture": "gfl", "init": {"detector": "teacher"}}},
)
DATASET: Body = {
    "name": "more",
    "train": {"images": "shapes/train", "annotations": "shapes/annotations/instances_train.json"},
    "val": {"images": "shapes/val", "annotations": "shapes/annotations/instances_val.json"},
}
DETECTOR: Body = {
    "name": "teacher",
    "description": {"config": "mmdet::gfl/gfl_r50_fpn_1x_coco.py", "init": "random"},
    "weights": "teacher.pth",
    "classes": ["a"],
}
DETECTOR_OF_JOB: Body = {"name": "student", "job": f"job_{ID}"}
BODIES = [
    ("/jobs", JOB),
    *(("/jobs", body) for body in REFERENCES),
    ("/datasets", DATASET),
    ("/detectors", DETECTOR),
    ("/detectors", DETECTOR_OF_JOB),
]


class Request(NamedTuple):
    method: str
    path: str
    place: tuple[Any, ...] = ()
    body: Body | None = None


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all strings, objects and lists in `value`."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def with_value(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of `body` with `value` at `path`."""
    if not path:
        return value
    copy = dict(body) if isinstance(body, dict) else list(body)
    copy[path[0]] = with_value(body[path[0]], path[1:], value)
    return copy


def posts(text: Any) -> Iterator[Request]:
    """Yield requests with `text` in every place of every body, and as a field name of each body."""
    seen = set()
    for path, body in BODIES:
        for place in places(body):
            if (path, place, repr(body if place == () else None)) not in seen:
                yield Request("POST", path, place, with_value(body, place, text))
        if isinstance(text, str):
            yield Request("POST", path, ("a field",), body | {text: "x"})


ROUTES = (
    ("GET", "/jobs/{}"),
    ("POST", "/jobs/{}/cancel"),
    *(
        ("GET", f"/jobs/{{}}/{part}")
        for part in ("metrics", "events", "logs", "checkpoints", "evaluations", "report", "config", "artifacts")
    ),
    ("GET", f"/jobs/job_{ID}/artifacts/{{}}"),
    ("GET", "/checkpoints/{}"),
    ("GET", "/checkpoints/{}/content"),
    ("GET", "/datasets/{}"),
    ("GET", "/datasets/{}/check"),
    ("DELETE", "/datasets/{}"),
    ("GET", "/detectors/{}"),
    ("DELETE", "/detectors/{}"),
    ("GET", "/jobs?dataset={}"),
    ("GET", "/jobs?tag={}"),
    ("GET", "/jobs?cursor={}"),
    ("GET", "/jobs?status={}"),
    ("GET", f"/jobs/job_{ID}/metrics?keys={{}}"),
)
"""Methods and paths with a placeholder for a parameter."""


def with_parameter(text: str) -> Iterator[Request]:
    """Yield requests with `text` as a parameter, percent-encoded once, so that the service receives the text itself."""
    for method, route in ROUTES:
        yield Request(method, route.format(quote(text, safe="", errors="replace")))
