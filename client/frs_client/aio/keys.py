"""`client.keys`."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from frs_client.aio.transport import AsyncTransport
from frs_client.answers import body_of, parse
from frs_client.models import Key, KeyCreate, NewKey
from frs_client.requests import path_of


class AsyncKeys:
    """API keys. Needs a key with the scope `admin`."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def create(self, key: KeyCreate | Mapping[str, Any]) -> NewKey:
        """Create an API key, such as `{"name": "ci", "owner": "ann", "scopes": ["submit"]}`; `token` is shown once."""
        return parse(NewKey, await self._client.post("/api-keys", body_of(key)))

    async def list(self) -> AsyncIterator[Key]:
        """Yield the API keys, newest first, without their tokens."""
        async for row in self._client.each("/api-keys"):
            yield parse(Key, row)

    async def get(self, key_id: str) -> Key:
        """Return an API key, without its token."""
        return parse(Key, await self._client.get(path_of("api-keys", key_id)))

    async def rotate(self, key_id: str, grace_hours: float = 24.0) -> NewKey:
        """Replace an API key by a new one like it and return that; the old one is valid for `grace_hours` more."""
        path = path_of("api-keys", key_id, "rotate")
        return parse(NewKey, await self._client.post(path, {"grace_hours": grace_hours}))

    async def revoke(self, key_id: str) -> None:
        """Revoke an API key for good, within 1 s. The owner's jobs continue."""
        await self._client.delete(path_of("api-keys", key_id))
