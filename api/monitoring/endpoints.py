"""Endpoint of Prometheus metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.http import files
from api.http.auth import MetricsReader

router = APIRouter(tags=["monitoring"])


@router.get("/metrics", response_class=Response, responses=files.content_response("text/plain"))
def scrape(_: MetricsReader, request: Request) -> Response:
    """Return metrics in the Prometheus text format.

    Metrics of the queue, jobs, attempts, workers and GPUs come from the database; metrics of requests and streams are
    those of the process that answers.
    """
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
