"""Logging: one JSON object per line, with control characters escaped."""

import logging
from typing import Any

import structlog


def configure() -> None:
    """Send all log records of the process to stderr as JSON, from level INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # two lines at every readiness check


def _add_logger_name(_: Any, __: str, event: Any) -> Any:
    """Add the name of the logger, as structlog does for its own loggers."""
    event["logger"] = event["_record"].name
    return event
