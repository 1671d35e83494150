"""The API removes what is left in its own uploads folder: replicas may have a disk each."""

import asyncio
from pathlib import Path

import pytest

from api import periodic
from api.context import open_context
from store.artifacts import unpacking
from store.artifacts.uploads import unpacked_folder
from store.initialise import initialise
from store.settings import Settings


def test_an_unpacked_data_set_that_was_deleted_elsewhere_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "CLEAN_SECONDS", 0.01)
    monkeypatch.setattr(unpacking, "SETTLED_SECONDS", -1)
    settings = Settings(data=tmp_path)
    initialise(settings)
    folder = unpacked_folder(settings, "0" * 64)
    other = settings.uploads_root / "unrelated"
    for path in (folder, other):
        path.mkdir(parents=True)

    async def clean_until_removed() -> None:
        task = asyncio.create_task(periodic.clean_uploads_periodically(context))
        while folder.exists():
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()

    context = open_context(settings)
    try:
        asyncio.run(asyncio.wait_for(clean_until_removed(), 60))
    finally:
        context.close()
    assert other.exists()
