"""Authentication: check the Host header and the API key before routing and before the body is read."""

import time
from dataclasses import replace
from functools import partial
from weakref import WeakValueDictionary

from anyio import Lock, to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http import web_page
from api.http.auth import Caller
from api.http.errors import ApiError
from api.http.oidc import TokenVerifier, is_jwt
from api.http.rate_limits import RateLimit, client_network, rate_limited
from api.http.request_log import client_address
from api.http.shared_limits import SharedLimits
from store.db import api_keys
from store.db.database import Database
from store.db.tables import ApiKey
from store.settings import Settings

PUBLIC_PATHS = frozenset(
    {
        "/",
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/docs",
        "/docs/start.js",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
    }
)
"""Paths that need no API key, beside the static files of the page."""
KEY_CACHE_SECONDS = 1.0
"""Lifetime of a cached key: a revoked key is rejected after at most this time."""

MAX_CACHED = 1000
"""Number of cached keys from which expired ones are removed: users who sign in have a new token every hour."""


class AuthMiddleware:
    """Reject requests with another host name, without a valid API key, or over the rate limit.

    Puts the `Caller` and a function that checks the key again into the state of the request.
    """

    def __init__(self, app: ASGIApp, database: Database, settings: Settings, shared_limits: SharedLimits) -> None:
        self.app = app
        self.key_cache = KeyCache(database, settings)
        self.settings = settings
        self.allowed_hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self.requests, self.failures = (RateLimit(shared_limits, name) for name in ("requests", "auth-failures"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check an HTTP request and pass it on. Raises ApiError."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if self.allowed_hosts and _hostname(headers.get("host", "")) not in self.allowed_hosts:
            hint = "Use a host name listed in the setting `FRS_ALLOWED_HOSTS`, or ask the operator to add this one."
            raise ApiError(400, "host_not_allowed", "The host name of the request is not allowed.", hint)
        if scope["path"] not in PUBLIC_PATHS and not scope["path"].startswith(f"{web_page.PREFIX}/"):
            await self._authenticate(scope, _token(headers), headers.get("frs-project"))
        return await self.app(scope, receive, send)

    async def _authenticate(self, scope: Scope, token: str, project: str | None) -> None:
        scope["state"]["key_prefix"] = api_keys.token_prefix(token)
        try:
            caller = await self.key_cache.get_caller(token, project)
        except ApiError as error:
            if error.status == 401:
                await self._count_failure(scope)
            raise
        per_minute = caller.requests_per_minute or self.settings.requests_per_minute
        if per_minute and (wait := await self.requests.take(caller.key_id, per_minute)):
            raise rate_limited(f"This key allows {per_minute} requests a minute.", wait)
        state = scope["state"]
        state["caller"] = replace(caller, address=client_address(scope), request_id=state["request_id"])
        state["recheck"] = partial(self.key_cache.get_caller, token, project)

    async def _count_failure(self, scope: Scope) -> None:
        """Count a failed authentication of the client's network. Raises ApiError, 429, over the limit."""
        network = client_network(client_address(scope) or "unknown")
        wait = await self.failures.take(network, self.settings.auth_failures_per_minute)
        if wait:
            raise rate_limited(
                "Too many requests with an invalid API key came from this address.", wait, "Use a valid API key."
            ) from None


class KeyCache:
    """Callers by the digest of their token and their project; each is read at most once in `KEY_CACHE_SECONDS`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._issuer = settings.oidc_issuer
        self._verifier = TokenVerifier(settings) if settings.oidc_issuer else None
        self._entries: dict[str, tuple[Caller, float]] = {}
        """Caller and expiry time by token digest."""
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    async def get_caller(self, token: str, project: str | None = None) -> Caller:
        """Return the caller of a token. Raises ApiError, 401, if the key is unknown, has expired or was revoked.

        A signed-in user acts as a member of `project`, if one is given; a key belongs to one owner. For other errors
        see `TokenVerifier.verify`.
        """
        digest = api_keys.token_digest(f"{token} {project}" if is_jwt(token) else token)
        cached = self._get_cached(digest)
        if cached is not None:
            return cached
        async with self._locks.setdefault(digest, Lock()):  # concurrent requests with one key share one query
            caller = self._get_cached(digest) or await to_thread.run_sync(self._load, token, project, digest)
        if caller is None:
            raise _unauthorised("unknown_key", "This API key is unknown, has expired or was revoked.")
        return caller

    def _get_cached(self, digest: str) -> Caller | None:
        caller, expires_at = self._entries.get(digest, (None, 0.0))
        return caller if time.monotonic() < expires_at else None

    def _load(self, token: str, project: str | None, digest: str) -> Caller | None:
        expires_at = time.monotonic() + KEY_CACHE_SECONDS  # counted from before the query, in case the query is slow
        key = self._find_user(token, project) if self._verifier and is_jwt(token) else self._find_key(token)
        if key is None:
            self._entries.pop(digest, None)
            return None
        scopes = api_keys.allowed_scopes(key.scopes)
        caller = Caller(key.id, key.owner, scopes, key.max_active_jobs, key.requests_per_minute, key.max_disk_bytes)
        if len(self._entries) >= MAX_CACHED:
            self._entries = {
                digest: entry for digest, entry in list(self._entries.items()) if entry[1] > time.monotonic()
            }
        self._entries[digest] = caller, expires_at
        return caller

    def _find_key(self, token: str) -> ApiKey | None:
        with self._database.read() as session:
            return api_keys.find(session, token)

    def _find_user(self, token: str, project: str | None) -> ApiKey | None:
        assert self._verifier and self._issuer
        user = self._verifier.verify(token, project)
        return api_keys.sign_in(self._database, self._issuer, user.subject, user.owner, user.scopes, user.name)


def _token(headers: Headers) -> str:
    """Return the bearer token. Raises ApiError, 401, unless there is exactly one."""
    values = headers.getlist("authorization")
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorised("key_missing", "This request needs an API key.")
    return token.strip()


def _unauthorised(code: str, detail: str) -> ApiError:
    hint = (
        "Send `Authorization: Bearer KEY`. The first key is in the file `api-key` of the data folder, with containers "
        "in `.secrets/api-key`."
    )
    return ApiError(401, code, detail, hint, headers={"WWW-Authenticate": "Bearer"})


def _hostname(host: str) -> str:
    """Return the host without its port, in lower case."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
