"""Who comes in: the right Host and a known key, seen to before a route is looked for or a body is read."""

import time
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from anyio import Lock, to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.auth import Caller
from api.http.errors import ApiError
from api.http.rate_limits import TokenBuckets, client_network, rate_limited
from store.db import api_keys
from store.db.database import Database
from store.settings import Settings

PUBLIC_PATHS = frozenset({"/health/live", "/health/ready", "/docs", "/openapi.json"})
KEY_CACHE_SECONDS = 1.0
"""A revoked key is refused after at most so long."""


class AuthMiddleware:
    def __init__(self, app: ASGIApp, database: Database, settings: Settings) -> None:
        self.app = app
        self.known = KeyCache(database)
        self.settings = settings
        self.allowed_hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self.requests, self.failures = TokenBuckets(), TokenBuckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if self.allowed_hosts and _hostname(headers.get("host", "")) not in self.allowed_hosts:
            hint = "An operator adds names in `FRS_ALLOWED_HOSTS`."
            raise ApiError(400, "host_not_allowed", "This service does not answer under that host name.", hint)
        if scope["path"] not in PUBLIC_PATHS:
            await self._let_in(scope, _token(headers))
        return await self.app(scope, receive, send)

    async def _let_in(self, scope: Scope, token: str) -> None:
        try:
            caller = await self.known.caller(token)
        except ApiError:
            self._note_failure(scope)
            raise
        per_minute = caller.requests_per_minute or self.settings.requests_per_minute
        if per_minute and (wait := self.requests.take(caller.key_id, per_minute)):
            raise rate_limited(f"This key allows {per_minute} requests a minute.", wait)
        scope["state"] |= {"caller": caller, "recheck": partial(self.known.caller, token)}

    def _note_failure(self, scope: Scope) -> None:
        """Raises ApiError, 429: whoever guesses hears no more than that."""
        address = client_network(scope["client"][0]) if scope.get("client") else "unknown"
        wait = self.failures.take(address, self.settings.auth_failures_per_minute)
        if wait:
            raise rate_limited(
                "Too many unknown keys came from this address.", wait, "Use a key that is valid."
            ) from None


class KeyCache:
    """Callers by their tokens' digest, each looked up once a second at most."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._known: dict[str, tuple[Caller, float]] = {}
        self._asking: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    async def caller(self, token: str) -> Caller:
        """Raises ApiError, 401, for a key that is unknown, has expired or was revoked."""
        digest = api_keys.token_digest(token)
        remembered = self._remembered(digest)
        if remembered is not None:
            return remembered
        async with self._asking.setdefault(digest, Lock()):  # of many requests with one key, the first asks
            found = self._remembered(digest) or await to_thread.run_sync(self._look_up, token, digest)
        if found is None:
            raise _unauthorised("unknown_key", "This API key is unknown, has expired or was revoked.")
        return found

    def _remembered(self, digest: str) -> Caller | None:
        caller, until = self._known.get(digest, (None, 0.0))
        return caller if self._clock() < until else None

    def _look_up(self, token: str, digest: str) -> Caller | None:
        until = self._clock() + KEY_CACHE_SECONDS  # from before the question: a slow answer is no longer believed
        with self._database.read() as session:
            key = api_keys.find(session, token)
        if key is None:
            self._known.pop(digest, None)
            return None
        caller = Caller(key.id, key.owner, api_keys.widest_scope(key), key.max_active_jobs, key.requests_per_minute)
        self._known[digest] = caller, until
        return caller


def _token(headers: Headers) -> str:
    sent = headers.getlist("authorization")
    scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorised("key_missing", "This needs an API key.")
    return token.strip()


def _unauthorised(code: str, detail: str) -> ApiError:
    hint = "Send `Authorization: Bearer KEY`; the first key is in the file `api-key` of the service's data folder."
    return ApiError(401, code, detail, hint, headers={"WWW-Authenticate": "Bearer"})


def _hostname(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
