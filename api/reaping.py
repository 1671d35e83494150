"""Reap in the API process as well, so that the jobs of the last worker are requeued when it dies."""

import asyncio
import logging

from anyio import to_thread

from api.context import Context
from store.reaper import Reaper

_log = logging.getLogger(__name__)


async def reap_periodically(context: Context) -> None:
    """Requeue jobs with an expired lease every `reap_seconds` until cancelled; log errors and try again."""
    reaper = Reaper(context.settings, context.database)
    while True:
        try:
            await to_thread.run_sync(reaper.reap_when_due)
        except Exception as error:  # the next round is the retry
            _log.warning("The reaper failed and will retry.", extra={"error": type(error).__name__})
        await asyncio.sleep(min(1.0, context.settings.reap_seconds))
