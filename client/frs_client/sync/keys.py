# Written by `make client` from aio/keys.py: change that file.
"""`client.keys`."""

from collections.abc import Iterator, Mapping
from typing import Any

from frs_client.answers import body_of, parse
from frs_client.models import Key, KeyCreate, NewKey
from frs_client.requests import path_of
from frs_client.sync.transport import Transport


class Keys:
    """API keys. Needs a key with the scope `admin`."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def create(self, key: KeyCreate | Mapping[str, Any], *, idempotency_key: str | None = None) -> NewKey:
        """Create an API key, such as `{"name": "ci", "owner": "ann", "scopes": ["submit"]}`; `token` is shown once.

        The service carries the request out once: see `jobs.submit`. If the first answer was lost, raises ApiError
        `already_created` with the id of the key.
        """
        return parse(NewKey, self._client.post("/api-keys", body_of(key), key=idempotency_key))

    def list(self) -> Iterator[Key]:
        """Yield the API keys, newest first, without their tokens."""
        for row in self._client.each("/api-keys"):
            yield parse(Key, row)

    def get(self, key_id: str) -> Key:
        """Return an API key, without its token."""
        return parse(Key, self._client.get(path_of("api-keys", key_id)))

    def rotate(self, key_id: str, grace_hours: float = 24.0, *, idempotency_key: str | None = None) -> NewKey:
        """Replace an API key by a new one like it and return that; the old one is valid for `grace_hours` more.

        As with `create`, the service carries the request out once.
        """
        path = path_of("api-keys", key_id, "rotate")
        return parse(NewKey, self._client.post(path, {"grace_hours": grace_hours}, key=idempotency_key))

    def revoke(self, key_id: str) -> None:
        """Revoke an API key for good, within 1 s. The owner's jobs continue."""
        self._client.delete(path_of("api-keys", key_id))
