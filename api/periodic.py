"""Periodic tasks of the API: it reaps, so that the last worker's jobs are requeued when it dies, and cleans."""

import asyncio
import logging

from anyio import to_thread

from api.context import Context
from store.artifacts import local_files, unpacking
from store.reaper import Reaper

CLEAN_SECONDS = 3600.0
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


async def clean_uploads_periodically(context: Context) -> None:
    """Remove what killed uploads left, and unpacked data sets that were deleted elsewhere, hourly until cancelled."""
    while True:
        await asyncio.sleep(CLEAN_SECONDS)
        try:
            await to_thread.run_sync(local_files.remove_stale, context.settings.uploads_root)
            await to_thread.run_sync(unpacking.remove_unused, context.settings, context.database)
        except Exception as error:  # the next round is the retry
            _log.warning("The uploads could not be cleaned.", extra={"error": type(error).__name__})
