"""Sign-in with tokens of an OpenID Connect provider (JWT), checked against the keys that the provider publishes."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
from joserfc import errors, jwt
from joserfc.jwk import JWKRegistry, Key, KeySet
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.http.errors import ApiError
from frs.names import OwnerName
from store.settings import Settings
from store.states import Scope

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Accepted signatures: those of a private key that the provider alone has."""
LEEWAY_SECONDS = 30
"""Accepted difference between the provider's clock and this host's."""
KEYS_VALID_SECONDS = 3600.0
"""Age from which the provider's keys are fetched again; until that succeeds, the old ones are used."""
REFETCH_SECONDS = 30.0
"""Shortest time between two requests to the provider, which tokens with unknown keys cannot shorten."""
TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 1 << 20
_owner = TypeAdapter(OwnerName)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """A signed-in user."""

    subject: str
    """The user's id at the provider."""
    owner: str
    """Owner whose rows the user sees: the user, or a project."""
    name: str | None
    """Owner name of the user; None if the token has none and the user is a member of a project."""
    scopes: tuple[Scope, ...]


class _Discovery(BaseModel):
    issuer: str
    jwks_uri: str


class _PublishedKeys(BaseModel):
    keys: list[dict[str, Any]]


class TokenVerifier:
    """Verifies tokens of the provider in the settings. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer and settings.oidc_audience
        self._issuer, self._settings = settings.oidc_issuer, settings
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": settings.oidc_audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._keys: KeySet | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = threading.Lock()

    def verify(self, token: str, project: str | None) -> Identity:
        """Return the user of a token, as a member of `project` if one is given.

        May wait for the provider. Raises ApiError: 401 if the token is not valid, 403 if the user is no member of the
        project or has no scope, 503 if the provider's keys cannot be fetched.
        """
        claims = self._verified_claims(token)
        groups = _texts(claims.get(self._settings.oidc_groups_claim))
        rules = self._settings.oidc_scopes
        scopes = tuple(dict.fromkeys(rules[group] for group in ("*", *groups) if group in rules))
        if not scopes:
            hint = "Ask the operator to give one of your groups a scope (the setting `FRS_OIDC_SCOPES`)."
            raise ApiError(403, "scope_missing", "None of this user's groups has a scope.", hint)
        if project is not None and project not in groups:
            hint = "Name a group that you belong to, or leave out the header `FRS-Project`."
            raise ApiError(403, "project_not_allowed", "This user is not a member of the project.", hint)
        name = self._name_of(claims)
        if (owner := project or name) is None:
            detail = f"The token's claim `{self._settings.oidc_owner_claim}` is no name of an owner."
            hint = "Set `FRS_OIDC_OWNER_CLAIM` to a claim such as `sub` or `email`: letters, digits and ._@-."
            raise ApiError(403, "owner_missing", detail, hint)
        return Identity(str(claims["sub"]), owner, name, scopes)

    def _name_of(self, claims: Mapping[str, Any]) -> str | None:
        try:
            return _owner.validate_python(claims.get(self._settings.oidc_owner_claim))
        except ValidationError:
            return None

    def _verified_claims(self, token: str) -> dict[str, Any]:
        try:
            try:
                decoded = jwt.decode(token, self._key_set(), algorithms=ALGORITHMS)
            except errors.InvalidKeyIdError:  # the provider may have new keys
                decoded = jwt.decode(token, self._key_set(unknown_key=True), algorithms=ALGORITHMS)
            self._claims.validate(decoded.claims)
        except errors.ExpiredTokenError:
            raise _not_valid("This token has expired.") from None
        except errors.ClaimError as error:
            raise _not_valid(f"The claim `{error.claim}` of this token is missing or has another value.") from None
        except (errors.JoseError, ValueError, TypeError):
            raise _not_valid("This token is not signed by a key of the provider.") from None
        return decoded.claims

    def _key_set(self, unknown_key: bool = False) -> KeySet:
        """Return the provider's keys. Raise ApiError, 503, if they were never fetched."""
        with self._lock:
            now = time.monotonic()
            is_due = unknown_key or now - self._fetched_at > KEYS_VALID_SECONDS
            if is_due and now - self._tried_at > REFETCH_SECONDS:
                self._tried_at = now
                try:
                    self._keys, self._fetched_at = self._fetch(), now
                except (httpx2.HTTPError, errors.JoseError, ValueError) as error:
                    if self._keys is None:
                        raise _unavailable() from error
            if self._keys is None:
                raise _unavailable()
            return self._keys

    def _fetch(self) -> KeySet:
        with httpx2.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client:
            address = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
            discovery = _Discovery.model_validate_json(_read(client, address))
            if discovery.issuer != self._issuer:
                raise ValueError("The provider's document names another issuer.")
            if urlsplit(discovery.jwks_uri).scheme != urlsplit(self._issuer).scheme:
                raise ValueError("The provider's keys have an address of another scheme.")
            published = _PublishedKeys.model_validate_json(_read(client, discovery.jwks_uri))
        return KeySet(_signing_keys(published))


def is_jwt(token: str) -> bool:
    """Return whether the text has the form of a signed token: three parts, separated by dots."""
    return token.count(".") == 2 and token.startswith("ey")


def _read(client: httpx2.Client, address: str) -> bytes:
    """Return the body of a successful answer. Raise HTTPError, or ValueError if it is longer than `_MAX_BYTES`."""
    with client.stream("GET", address) as response:
        response.raise_for_status()
        body = b""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_BYTES:
                raise ValueError("The provider's answer is too long.")
    return body


def _signing_keys(published: _PublishedKeys) -> list[Key]:
    """Return the keys that can check signatures. Raise ValueError if there are none.

    Others are ignored (RFC 7517, section 5): of an unknown type or curve, or with missing or wrong values.
    """
    keys: list[Key] = []
    for key in published.keys:
        if key.get("kty") != "oct" and key.get("use", "sig") == "sig":
            try:
                keys.append(JWKRegistry.import_key(key))
            except Exception as error:  # joserfc passes on what its parts and cryptography raise
                _log.warning("The sign-in provider's key %.80r is ignored: %r", key.get("kid"), error)
    if not keys:
        raise ValueError("The provider has published no key that can be used.")
    return keys


def _texts(value: object) -> list[str]:
    """Return the groups of a claim that is a text or a list of texts."""
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def _not_valid(detail: str) -> ApiError:
    hint = "Sign in at the provider again, or use an API key."
    return ApiError(401, "token_not_valid", detail, hint, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def _unavailable() -> ApiError:
    detail = "The sign-in provider does not answer, so its tokens cannot be checked."
    hint = f"Try again in {REFETCH_SECONDS:.0f} s; API keys work meanwhile. Operators: see `FRS_OIDC_ISSUER`."
    headers = {"Retry-After": f"{REFETCH_SECONDS:.0f}"}
    return ApiError(503, "oidc_provider_unavailable", detail, hint, headers=headers)
