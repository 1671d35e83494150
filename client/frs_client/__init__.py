"""Python client of the frs distillation service: `Client().jobs.submit(spec)`, `.wait()`, `.report()`.

`Client` is synchronous, `AsyncClient` has the same methods to be awaited.
"""

from frs_client.aio.client import AsyncClient
from frs_client.answers import Json
from frs_client.errors import ApiError, NoAnswer, ServiceError
from frs_client.frames import MetricCurves
from frs_client.models import FieldError, JobSpec
from frs_client.sse import StreamEvent
from frs_client.sync.client import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "FieldError",
    "JobSpec",
    "Json",
    "MetricCurves",
    "NoAnswer",
    "ServiceError",
    "StreamEvent",
]
