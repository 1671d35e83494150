"""Webhooks: create, list and delete them, read their deliveries, repeat one; received by a real server."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from receivers import Receiver, status
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook as Verifier
from waiting import until

from api.app import create_app
from store.db.webhook_tables import Webhook, WebhookDelivery
from store.settings import Settings

URL = "https://hooks.example/frs?token=abc"
METADATA = [
    "http://169.254.169.254/latest/meta-data",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://①69.254.169.254/",
    "http://169。254。169。254/",
]


@pytest.fixture
def local_service(settings, serve):
    """A service that may send to loopback."""
    settings = Settings(**settings.model_dump() | {"webhook_allowed_networks": "127.0.0.0/8"})
    with serve(create_app(settings), settings) as service:
        service.register("shapes")
        yield service


def create(service, **changes):
    response = service.client.post("/webhooks", json={"url": URL, **changes})
    assert response.status_code == 201, response.text
    return response.json()


def cancel_job(service) -> str:
    job_id = service.submit()["id"]
    assert service.client.post(f"/jobs/{job_id}/cancel").status_code == 202
    return job_id


def delivered(service, webhook_id):
    """Wait for the end of the first delivery and return it."""
    path = f"/webhooks/{webhook_id}/deliveries"
    return until(lambda: [row for row in service.get(path)["data"] if row["status"] == "delivered"])[0]


def test_the_secret_is_shown_once_and_stored_for_signing(service):
    response = service.client.post("/webhooks", json={"url": URL})
    webhook = response.json()
    assert response.headers["location"] == f"/webhooks/{webhook['id']}"
    assert response.headers["cache-control"] == "no-store"
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    assert service.get(f"/webhooks/{webhook['id']}") == webhook
    assert service.get("/webhooks")["data"] == [webhook]
    assert secret not in service.client.get("/audit").text
    assert webhook["events"] == ["job.succeeded", "job.failed", "job.cancelled"]
    assert (webhook["owner"], webhook["status"], webhook["url"]) == ("admin", "active", URL)


def create_with_key(service, key="k1", **changes):
    return service.client.post("/webhooks", json={"url": URL, **changes}, headers={"Idempotency-Key": key})


def test_a_repeated_request_creates_one_webhook_and_does_not_show_its_secret_again(service):
    first, second = create_with_key(service), create_with_key(service)
    assert first.status_code == 201
    problem = service.assert_problem(second, 409, "already_created")
    assert first.json()["id"] in problem["detail"] and first.json()["secret"] not in second.text
    assert [webhook["id"] for webhook in service.get("/webhooks")["data"]] == [first.json()["id"]]
    assert len(service.get("/audit?action=webhook.create")["data"]) == 1


def test_another_webhook_under_the_same_idempotency_key_is_refused(service):
    create_with_key(service)
    service.assert_problem(create_with_key(service, events=["job.failed"]), 422, "idempotency_key_reused")
    assert create_with_key(service, "k2", events=["job.failed"]).status_code == 201


def test_who_lost_the_answer_deletes_the_webhook_and_creates_it_with_a_new_key(service):
    webhook = create_with_key(service).json()
    assert service.client.delete(f"/webhooks/{webhook['id']}").status_code == 204
    assert create_with_key(service, "k2").json()["secret"] != webhook["secret"]
    assert len(service.get("/webhooks")["data"]) == 1


def test_concurrent_requests_with_one_idempotency_key_create_one_webhook(service):
    with ThreadPoolExecutor(10) as pool:
        responses = list(pool.map(lambda _: create_with_key(service), range(10)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 9
    assert len(service.get("/webhooks")["data"]) == 1


def test_an_event_reaches_the_receiver_signed_and_the_log_has_its_attempt(local_service):
    with Receiver() as receiver:
        webhook = create(local_service, url=receiver.url, events=["job.cancelled"])
        job_id = cancel_job(local_service)
        request = receiver.received.get(timeout=60)
        delivery = delivered(local_service, webhook["id"])
    event = Verifier(webhook["secret"]).verify(request.body, request.headers)
    assert (event["type"], event["data"]["id"], event["data"]["status"]) == ("job.cancelled", job_id, "cancelled")
    assert delivery["id"] == request.headers["webhook-id"]
    assert delivery["body"] == event == json.loads(request.body)
    assert (delivery["job_id"], delivery["event"], delivery["next_attempt_at"]) == (job_id, "job.cancelled", None)
    [attempt] = delivery["attempts"]
    assert (attempt["number"], attempt["status_code"], attempt["error"]) == (1, 204, None)
    assert attempt["duration_seconds"] >= 0


def test_a_delivery_is_repeated_on_request(local_service):
    with Receiver(status(200)) as receiver:
        webhook = create(local_service, url=receiver.url)
        cancel_job(local_service)
        first = receiver.received.get(timeout=60)
        delivery = delivered(local_service, webhook["id"])
        path = f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}/redeliver"
        response = local_service.client.post(path)
        assert (response.status_code, response.json()["status"]) == (202, "pending")
        again = receiver.received.get(timeout=60)
    assert again.headers["webhook-id"] == first.headers["webhook-id"]
    assert again.body == first.body
    assert until(lambda: delivered(local_service, webhook["id"])["attempt"] == 2)


def test_a_failed_attempt_is_in_the_log(local_service):
    with Receiver(status(503)) as receiver:
        webhook = create(local_service, url=receiver.url)
        cancel_job(local_service)
        receiver.received.get(timeout=60)
        path = f"/webhooks/{webhook['id']}/deliveries"
        [delivery] = until(lambda: [row for row in local_service.get(path)["data"] if row["attempts"]])
    assert (delivery["status"], delivery["attempts"][0]["status_code"]) == ("pending", 503)
    assert delivery["next_attempt_at"] > delivery["attempts"][0]["at"]
    assert local_service.get(f"/webhooks/{webhook['id']}")["status"] == "failing"
    assert local_service.get(path, params={"status": "dead"})["data"] == []
    assert len(local_service.get(path, params={"status": "pending"})["data"]) == 1


@pytest.mark.parametrize("url", METADATA)
def test_the_metadata_address_is_refused_in_every_notation(shared_service, url):
    problem = shared_service.assert_problem(
        shared_service.client.post("/webhooks", json={"url": url}), 422, "webhook_address_not_allowed"
    )
    assert problem["errors"][0]["loc"] == "url"


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "[::1]", "[fd00::1]", "0", "127.1", "224.0.0.1"])
def test_a_local_address_is_refused(shared_service, host):
    response = shared_service.client.post("/webhooks", json={"url": f"http://{host}:8000/jobs"})
    shared_service.assert_problem(response, 422, "webhook_address_not_allowed")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "gopher://hooks.example/",
        "unix:/run/docker.sock",
        "hooks.example",
        "http://",
        "https://alice:hunter2@hooks.example/",
        "https://hunter2@hooks.example/",
        "https://:hunter2@hooks.example/",
        f"https://hooks.example/{'x' * 2000}",
        "",
        7,
        None,
        ["https://hooks.example/"],
    ],
)
def test_a_url_that_is_no_address_of_a_receiver_is_refused_without_echo(shared_service, url):
    response = shared_service.client.post("/webhooks", json={"url": url})
    shared_service.assert_problem(response, 422, "invalid_request")
    assert "hunter2" not in response.text


@pytest.mark.parametrize("events", [[], ["job.exploded"], "job.failed", ["job.failed"] * 6])
def test_unknown_events_are_refused(shared_service, events):
    response = shared_service.client.post("/webhooks", json={"url": URL, "events": events})
    shared_service.assert_problem(response, 422, "invalid_request")


@pytest.mark.parametrize("path", ["/a\r\nX-Injected: 1", "/a b", "/%0d%0aX-Injected:%201", "/\tä"])
def test_a_url_cannot_inject_a_header(local_service, path):
    with Receiver() as receiver:
        webhook = create(local_service, url=f"{receiver.url}{path}")
        cancel_job(local_service)
        request = receiver.received.get(timeout=60)
        delivered(local_service, webhook["id"])
    assert "x-injected" not in request.headers
    assert request.target.isascii()


def test_a_webhook_can_be_deleted(service, shapes):
    webhook = create(service)
    cancel_job(service)
    assert service.client.delete(f"/webhooks/{webhook['id']}").status_code == 204
    for call in (service.client.get, service.client.delete):
        service.assert_problem(call(f"/webhooks/{webhook['id']}"), 404, "webhook_not_found")
    service.assert_problem(service.client.get(f"/webhooks/{webhook['id']}/deliveries"), 404, "webhook_not_found")
    with service.database.read() as session:
        assert session.scalars(select(WebhookDelivery)).all() == []


def test_a_delivery_of_another_webhook_is_not_found(service, shapes):
    first, second = create(service), create(service)
    cancel_job(service)
    [delivery] = service.get(f"/webhooks/{first['id']}/deliveries")["data"]
    path = f"/webhooks/{second['id']}/deliveries/{delivery['id']}/redeliver"
    service.assert_problem(service.client.post(path), 404, "delivery_not_found")


def test_an_owner_has_a_limited_number_of_webhooks(service):
    for _ in range(20):
        create(service)
    problem = service.assert_problem(service.client.post("/webhooks", json={"url": URL}), 409, "too_many_webhooks")
    assert "FRS_MAX_WEBHOOKS" in problem["hint"]


def test_the_audit_trail_has_each_change_without_the_path_of_the_url(service, shapes):
    webhook = create(service)
    cancel_job(service)
    [delivery] = service.get(f"/webhooks/{webhook['id']}/deliveries")["data"]
    service.client.post(f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}/redeliver")
    service.client.delete(f"/webhooks/{webhook['id']}")
    entries = service.get("/audit")["data"][::-1]
    changes = [(entry["action"], entry["target"]) for entry in entries if entry["action"].startswith("webhook")]
    assert changes == [
        ("webhook.create", webhook["id"]),
        ("webhook.redeliver", delivery["id"]),
        ("webhook.delete", webhook["id"]),
    ]
    [created] = [entry for entry in entries if entry["action"] == "webhook.create"]
    assert created["details"] == {"host": "hooks.example", "events": webhook["events"]}


def test_pages_of_webhooks_and_deliveries_follow_each_other(service, shapes):
    webhooks = [create(service)["id"] for _ in range(3)][::-1]
    for _ in range(2):
        cancel_job(service)
    for path, count in (("/webhooks", 3), (f"/webhooks/{webhooks[0]}/deliveries", 2)):
        first = service.get(path, params={"limit": 1})
        rest = service.get(path, params={"cursor": first["next_cursor"]})
        ids = [row["id"] for row in first["data"] + rest["data"]]
        assert (len(ids), len(set(ids)), rest["next_cursor"]) == (count, count, None)


def test_dead_webhooks_are_in_the_metrics(service):
    webhooks = [create(service)["id"] for _ in range(3)]
    with service.database.write() as session:
        for webhook_id, values in zip(
            webhooks, ({"failing_since": 1.0}, {"failing_since": 1.0, "dead_since": 2.0}), strict=False
        ):
            session.execute(update(Webhook).where(Webhook.id == webhook_id).values(values))
        session.commit()
    text = service.client.get("/metrics").text
    for state in ("active", "failing", "dead"):
        assert f'frs_webhooks{{status="{state}"}} 1.0' in text


def test_a_key_that_only_reads_cannot_change_webhooks(service, shapes):
    webhook = create(service)
    body = {"name": "reader", "owner": "admin", "scopes": ["read"]}
    token = service.client.post("/api-keys", json=body).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert service.client.get("/webhooks", headers=headers).json()["data"][0]["id"] == webhook["id"]
    response = service.client.delete(f"/webhooks/{webhook['id']}", headers=headers)
    service.assert_problem(response, 403, "scope_missing")
