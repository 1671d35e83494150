"""Requests with tokens of an OpenID Connect provider."""

import base64
import hmac
import json
import logging
import threading
import time
import warnings
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import RSAKey
from pydantic import ValidationError
from sqlalchemy import update

from api.http import oidc
from store.db.tables import ApiKey
from store.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it uses a module that Authlib has deprecated
    import oidc_provider_mock

KEY, OTHER_KEY = (RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("first", "second"))


@dataclass
class Provider:
    """A provider on loopback whose documents a test can change."""

    issuer: str = ""
    keys: list[RSAKey] = field(default_factory=lambda: [KEY])
    requests: list[str] = field(default_factory=list)
    discovery: dict[str, str] = field(default_factory=dict)
    """Fields of the discovery document that replace those of the issuer."""
    is_down: bool = False

    def token(self, key=KEY, algorithm="RS256", header=None, **claims):
        """Return a token of the user anna; claims that are None are left out."""
        all_claims = {"iss": self.issuer, "aud": "frs", "sub": "anna", "exp": int(time.time()) + 60} | claims
        present = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode({"alg": algorithm, "kid": "first"} | (header or {}), present, key)

    def answer(self, path):
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"} | self.discovery
        return {"keys": [key.as_dict(private=False) for key in self.keys]}


@pytest.fixture
def provider():
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            provider.requests.append(self.path)
            body = json.dumps(provider.answer(self.path)).encode()
            self.send_response(500 if provider.is_down else 200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    yield provider
    server.shutdown()
    server.server_close()


@pytest.fixture
def signing_in(serving, provider):
    """Return a context manager that runs the service with this provider; `changes` are of the settings."""
    return lambda **changes: serving(oidc_issuer=provider.issuer, oidc_audience="frs", **changes)


def get(service, token, path="/jobs", **headers):
    return service.client.get(path, headers={"Authorization": f"Bearer {token}", **headers})


def test_a_user_of_a_real_provider_signs_in(serving):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    users = [oidc_provider_mock.User(sub="anna", claims={"groups": ["vision"], "email": "anna@example.org"})]
    with oidc_provider_mock.run_server_in_thread(user_claims=users) as server:
        issuer = f"http://localhost:{server.server_port}"
        token = token_of_real_provider(issuer, "anna")
        with serving(oidc_issuer=issuer, oidc_audience="frs", oidc_owner_claim="email") as service:
            assert get(service, token).status_code == 200
            assert [key["owner"] for key in service.get("/api-keys")["data"]] == ["anna@example.org", "admin"]


def token_of_real_provider(issuer, user):
    """Return the id token of the authorization code flow."""
    callback = "https://app.example/callback"
    query = {"client_id": "frs", "redirect_uri": callback, "response_type": "code", "scope": "openid email"}
    with httpx2.Client(base_url=issuer) as client:
        location = client.post("/oauth2/authorize", params=query, data={"sub": user}).headers["location"]
        code = parse_qs(urlsplit(location).query)["code"][0]
        grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": callback}
        return client.post("/oauth2/token", data=grant, auth=("frs", "secret")).json()["id_token"]


def test_users_see_their_own_rows_and_api_keys_still_work(signing_in, provider):
    with signing_in() as service:
        service.register("shapes")
        service.submit()
        assert get(service, provider.token()).json()["data"] == []
        assert len(service.get("/jobs")["data"]) == 1


def test_members_of_a_group_share_the_rows_of_its_project(signing_in, provider):
    with signing_in() as service:
        anna, ben = (provider.token(sub=sub, groups=["vision"]) for sub in ("anna", "ben"))
        headers = {"Authorization": f"Bearer {anna}", "FRS-Project": "vision"}
        created = service.client.post("/datasets", json={"name": "shapes"}, headers=headers)
        assert created.status_code == 201, created.text
        names = [row["name"] for row in get(service, ben, "/datasets", **{"FRS-Project": "vision"}).json()["data"]]
        assert names == ["shapes"]
        assert get(service, ben, "/datasets").json()["data"] == []
        stranger = get(service, provider.token(sub="eve", groups=["sales"]), **{"FRS-Project": "vision"})
        service.assert_problem(stranger, 403, "project_not_allowed")


def test_scopes_follow_the_groups(signing_in, provider):
    rules = {"*": "read", "operators": "admin"}
    with signing_in(oidc_scopes=rules) as service:
        reader, operator = provider.token(sub="rita"), provider.token(sub="otto", groups=["operators"])
        headers = {"Authorization": f"Bearer {reader}"}
        service.assert_problem(service.client.post("/jobs", json={}, headers=headers), 403, "scope_missing")
        assert get(service, reader, "/api-keys").status_code == 403
        assert get(service, operator, "/api-keys").status_code == 200
    with signing_in(oidc_scopes={"operators": "admin"}) as service:
        service.assert_problem(get(service, reader), 403, "scope_missing")


def test_a_user_whose_row_was_revoked_is_locked_out(signing_in, provider):
    with signing_in() as service:
        assert get(service, provider.token()).status_code == 200
        [row] = [key for key in service.get("/api-keys")["data"] if key["owner"] == "anna"]
        assert service.client.delete(f"/api-keys/{row['id']}").status_code == 204
        service.assert_problem(get(service, provider.token(exp=int(time.time()) + 61)), 401, "unknown_key")
        service.assert_problem(service.client.post(f"/api-keys/{row['id']}/rotate", json={}), 409, "key_not_valid")


def rows_of_users(service):
    return {key["owner"]: key for key in service.get("/api-keys")["data"] if key["name"].startswith("sign-in")}


@pytest.mark.parametrize("revoked", ["anna", "vision"])
def test_a_user_with_one_revoked_row_is_locked_out_of_all_projects(signing_in, provider, revoked):
    groups = ["vision", "robots"]
    with signing_in() as service:
        token = provider.token(groups=groups)
        for headers in ({}, {"FRS-Project": "vision"}):
            assert get(service, token, **headers).status_code == 200
        service.client.delete(f"/api-keys/{rows_of_users(service)[revoked]['id']}")
        later = provider.token(groups=groups, exp=int(time.time()) + 61)
        for headers in ({}, {"FRS-Project": "vision"}, {"FRS-Project": "robots"}):
            service.assert_problem(get(service, later, **headers), 401, "unknown_key")
        assert "robots" not in rows_of_users(service)
        assert get(service, provider.token(sub="ben", groups=groups), **{"FRS-Project": "vision"}).status_code == 200


def test_a_user_whose_row_an_earlier_version_added_and_revoked_stays_locked_out(signing_in, provider):
    with signing_in() as service:
        assert get(service, provider.token()).status_code == 200
        earlier = update(ApiKey).where(ApiKey.owner == "anna").values(user_digest=None, revoked_at=1.0)
        service.transact(lambda session: session.execute(earlier))
        project = get(service, provider.token(groups=["vision"]), **{"FRS-Project": "vision"})
        service.assert_problem(project, 401, "unknown_key")


def test_rows_of_users_name_the_user_and_the_project(signing_in, provider):
    with signing_in(oidc_owner_claim="email") as service:
        for claims in ({"email": "anna@example.org"}, {"sub": "x", "email": None}):
            token = provider.token(groups=["vision", "robots"], **claims)
            assert get(service, token, **{"FRS-Project": "vision"}).status_code == 200
        names = [key["name"] for key in service.get("/api-keys")["data"]]
        assert names == ["sign-in for vision", "sign-in of anna@example.org for vision", "first key"]
        service.transact(lambda session: session.execute(update(ApiKey).values(name="of an earlier version")))
        later = provider.token(groups=["vision"], email="anna@example.org", exp=int(time.time()) + 61)
        assert get(service, later, **{"FRS-Project": "vision"}).status_code == 200
        assert "sign-in of anna@example.org for vision" in [key["name"] for key in service.get("/api-keys")["data"]]


def test_a_signed_in_admin_does_not_count_as_the_last_admin_key(signing_in, provider):
    with signing_in(oidc_scopes={"*": "admin"}) as service:
        assert get(service, provider.token()).status_code == 200
        [first] = [key for key in service.get("/api-keys")["data"] if key["name"] == "first key"]
        service.assert_problem(service.client.delete(f"/api-keys/{first['id']}"), 409, "last_admin_key")


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"aud": "another service"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"sub": None},
        {"nbf": int(time.time()) + 3600},
        {"key": OTHER_KEY},
        {"key": OTHER_KEY, "header": {"kid": "second"}},
        {"key": OTHER_KEY, "header": {"jwk": OTHER_KEY.as_dict(private=False)}},
    ],
    ids=lambda changes: "-".join(changes) + str(len(str(changes))),
)
def test_an_invalid_token_is_401(signing_in, provider, changes):
    with signing_in() as service:
        service.assert_problem(get(service, provider.token(**changes)), 401, "token_not_valid")


def test_a_token_without_signature_is_401(signing_in, provider):
    header, claims, signature = provider.token().split(".")
    none = "eyJhbGciOiJub25lIn0"
    with signing_in() as service:
        for forged in (f"{none}.{claims}.", f"{none}.{claims}.{signature}", f"{header}.{claims}.", "ey.ey.ey", "ey.."):
            service.assert_problem(get(service, forged), 401, "token_not_valid")


def test_a_token_signed_with_the_public_key_as_a_shared_secret_is_401(signing_in, provider):
    _, claims, _ = provider.token().split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"first"}').decode().rstrip("=")
    digest = hmac.digest(KEY.as_pem(private=False), f"{header}.{claims}".encode(), "sha256")
    forged = f"{header}.{claims}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
    with signing_in() as service:
        service.assert_problem(get(service, forged), 401, "token_not_valid")


def test_a_token_is_unknown_to_a_service_without_provider(service, provider):
    service.assert_problem(get(service, provider.token()), 401, "unknown_key")


def test_an_owner_name_that_is_none_is_refused(signing_in, provider):
    with signing_in(oidc_owner_claim="email") as service:
        for email in (None, 5, "", "a b@example.org", ["anna"], "x" * 101):
            service.assert_problem(get(service, provider.token(email=email)), 403, "owner_missing")


def test_new_keys_of_the_provider_are_fetched_once_until_the_pause_is_over(signing_in, provider, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(oidc, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with signing_in() as service:
        assert get(service, provider.token()).status_code == 200
        provider.keys = [OTHER_KEY]
        rotated = {"key": OTHER_KEY, "header": {"kid": "second"}}
        for number in range(5):  # a flood of tokens with unknown keys
            get(service, provider.token(sub=f"user{number}", **rotated))
        assert len(provider.requests) == 2
        clock.now += oidc.REFETCH_SECONDS + 1
        assert get(service, provider.token(**rotated)).status_code == 200
        assert len(provider.requests) == 4


def test_a_provider_that_is_down_is_503_at_first_and_no_loss_later(signing_in, provider, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(oidc, "time", SimpleNamespace(monotonic=lambda: clock.now))
    provider.is_down = True
    with signing_in() as service:
        response = get(service, provider.token())
        service.assert_problem(response, 503, "oidc_provider_unavailable")
        assert response.headers["retry-after"] == "30"
        provider.is_down = False
        clock.now += oidc.REFETCH_SECONDS + 1
        assert get(service, provider.token()).status_code == 200
        provider.is_down = True
        clock.now += oidc.KEYS_VALID_SECONDS + 1
        assert get(service, provider.token(sub="ben")).status_code == 200


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "https://evil.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"padding": "x" * (1 << 20)},
    ],
    ids=["issuer", "https", "file", "long"],
)
def test_a_provider_whose_documents_are_wrong_is_503(signing_in, provider, discovery):
    provider.discovery = discovery
    with signing_in() as service:
        service.assert_problem(get(service, provider.token()), 503, "oidc_provider_unavailable")
    assert provider.requests == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("keys", [{}, {"keys": None}, {"keys": ["text"]}, {"keys": []}, []])
def test_a_provider_whose_keys_are_no_keys_is_503(signing_in, provider, monkeypatch, keys):
    answer = provider.answer
    monkeypatch.setattr(provider, "answer", lambda path: keys if path == "/keys" else answer(path))
    with signing_in() as service:
        service.assert_problem(get(service, provider.token()), 503, "oidc_provider_unavailable")


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "EC", "crv": "BP-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "n": "AA"},
        {"kty": "AKP", "pub": "AA"},
        {"kty": []},
    ],
    ids=["curve", "point", "incomplete", "type", "no-type"],
)
def test_published_keys_that_cannot_be_used_are_ignored(signing_in, provider, monkeypatch, caplog, key):
    answer = provider.answer

    def answer_with_unusable_key(path):
        document = answer(path)
        return {"keys": [key | {"kid": "odd"}, *document["keys"]]} if path == "/keys" else document

    monkeypatch.setattr(provider, "answer", answer_with_unusable_key)
    with signing_in() as service:
        assert get(service, provider.token()).status_code == 200
        odd = provider.token(header={"kid": "odd"})
        service.assert_problem(get(service, odd), 401, "token_not_valid")
        assert "key 'odd'" in caplog.text
        provider.keys = []
    with signing_in() as service:
        service.assert_problem(get(service, provider.token()), 503, "oidc_provider_unavailable")


def test_the_settings_of_the_provider_are_checked(tmp_path):
    rules = Settings(data=tmp_path, oidc_scopes="*=read, a=b=submit").oidc_scopes
    assert rules == {"*": "read", "a=b": "submit"}
    for wrong in (
        {"oidc_issuer": "https://login.example.org"},
        {"oidc_audience": "frs"},
        {"oidc_issuer": "http://login.example.org", "oidc_audience": "frs"},
        {"oidc_scopes": "*=root"},
        {"oidc_scopes": "*=read,operators"},
    ):
        with pytest.raises(ValidationError):
            Settings(data=tmp_path, **wrong)


def test_a_project_header_of_an_api_key_changes_nothing(service):
    with TestClient(service.client.app):
        assert service.client.get("/jobs", headers={"FRS-Project": "other"}).status_code == 200
