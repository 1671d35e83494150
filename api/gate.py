"""Who comes in: the right Host and a known key, seen to before a route is looked for or a body is read."""

import time
from collections.abc import Collection
from functools import partial

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.caller import Caller
from api.problems import Refusal
from store import keys
from store.database import Database

OPEN = frozenset({"/health/live", "/health/ready", "/docs", "/openapi.json"})
REMEMBER_SECONDS = 1.0
"""A revoked key is refused after at most so long."""


class Gate:
    def __init__(self, app: ASGIApp, database: Database, allowed_hosts: Collection[str]) -> None:
        self.app = app
        self.known = KnownKeys(database)
        self.allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if self.allowed_hosts and _hostname(headers.get("host", "")) not in self.allowed_hosts:
            raise Refusal(400, "host_not_allowed", "This service does not answer under that host name.")
        if scope["path"] not in OPEN:
            token = _token(headers)
            scope["state"]["caller"] = await self.known.caller(token)
            scope["state"]["ask_again"] = partial(self.known.caller, token)  # for answers that take long
        return await self.app(scope, receive, send)


class KnownKeys:
    """Callers by their tokens' digest, each looked up once a second at most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[Caller, float]] = {}

    async def caller(self, token: str) -> Caller:
        """Raises Refusal, 401, for a key that is unknown, has expired or was revoked."""
        digest = keys.digest(token)
        caller, until = self._known.get(digest, (None, 0.0))
        if caller is not None and time.monotonic() < until:
            return caller
        found = await to_thread.run_sync(self._look_up, token)
        if found is None:
            self._known.pop(digest, None)
            raise _unauthorised("unknown_key", "This API key is unknown, has expired or was revoked.")
        self._known[digest] = found, time.monotonic() + REMEMBER_SECONDS
        return found

    def _look_up(self, token: str) -> Caller | None:
        with self._database.read() as session:
            key = keys.find(session, token)
        if key is None:
            return None
        widest = keys.widest(key)
        return Caller(key.id, key.owner, widest, key.max_active_jobs, key.requests_per_minute)


def _token(headers: Headers) -> str:
    sent = headers.getlist("authorization")
    scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorised("key_missing", "This needs an API key.")
    return token.strip()


def _unauthorised(code: str, detail: str) -> Refusal:
    hint = "Send `Authorization: Bearer KEY`; the first key is in the file `api-key` of the service's data folder."
    return Refusal(401, code, detail, hint, headers={"WWW-Authenticate": "Bearer"})


def _hostname(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
