"""Events as e-mail: through the operator's server, to the operator's domains only."""

import asyncio
import json
from email import message_from_bytes, policy

import pytest
from mail_server import MailServer
from pydantic import ValidationError

from api.app import create_app
from api.webhooks.mail import NO_SERVER, OTHER_DOMAIN, Mailer, message
from store.settings import Settings
from store.webhooks.deliveries import Claim

SENDER = "frs@example.org"
ALICE = "mailto:alice@example.org"
ERROR = {"code": "diverged", "message": "The loss became nan.", "hint": "Lower the learning rate."}


def claim(url=ALICE, name="gfl-r18") -> Claim:
    job = {"id": "job_1", "name": name, "owner": "alice", "error": ERROR}
    body = json.dumps({"type": "job.failed", "timestamp": "2026-11-30T06:24:11Z", "data": job})
    return Claim("delivery_1", "webhook_1", 1, url, "whsec_AAAA", body, 1.0)


def send(url, server_url, **settings):
    settings = Settings(smtp_url=server_url, smtp_from=SENDER, **settings)
    return asyncio.run(Mailer(settings).send(claim(url)))


def test_a_mail_names_the_job_its_end_and_the_next_step():
    with MailServer() as server:
        outcome = send(ALICE, server.url)
        mail = message_from_bytes(server.messages.get(timeout=60), policy=policy.default)
    assert (outcome.status_code, outcome.error) == (None, None)
    assert (mail["From"], mail["To"]) == (SENDER, "alice@example.org")
    assert mail["Subject"] == "frs: job gfl-r18 failed"
    assert mail["Message-ID"] == "<delivery_1@example.org>"
    assert "The loss became nan.\r\nLower the learning rate." in mail.get_content()
    assert "frs job job_1" in mail.get_content()


def test_a_name_cannot_inject_a_header():
    mail = message(claim(name="a\r\nBcc: eve@evil.example\r\n\r\nbody"), SENDER)
    assert mail["Bcc"] is None
    assert mail["Subject"] == "frs: job a Bcc: eve@evil.example body failed"


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"RCPT": "550 no such user"}, "The mail server refused the address with 550."),
        ({"MAIL": "451 later"}, "The mail server answered 451."),
        ({"DATA": "554 no"}, "The mail server answered 554."),
    ],
)
def test_an_error_of_the_mail_server_is_the_outcome(answers, error):
    with MailServer(answers) as server:
        assert send(ALICE, server.url).error == error


def test_the_answer_to_the_end_of_a_session_changes_no_outcome():
    with MailServer({"QUIT": "421 too busy"}) as server:
        assert send(ALICE, server.url).error is None
    with MailServer({"QUIT": "421 too busy", "RCPT": "550 no such user"}) as server:
        assert send(ALICE, server.url).error == "The mail server refused the address with 550."


def test_a_mail_server_that_is_down_is_an_error():
    with MailServer() as server:
        pass
    assert "ConnectionRefusedError" in send(ALICE, server.url).error


def test_a_password_is_not_sent_in_clear():
    with MailServer() as server:
        outcome = send(ALICE, server.url.replace("//", "//alice:hunter2@"))
    assert outcome.error
    assert not any("AUTH" in command for command in server.commands)


@pytest.mark.parametrize("url", ["mailto:eve@evil.example", "mailto:eve@mail.example.org"])
def test_mail_to_another_domain_is_refused_at_every_attempt(url):
    with MailServer() as server:
        assert send(url, server.url).error == OTHER_DOMAIN
        assert send(url, server.url, mail_domains="EVIL.example,mail.example.org").error is None
        assert send(ALICE, server.url, mail_domains="evil.example").error == OTHER_DOMAIN


def test_without_a_mail_server_a_mail_address_is_refused(shared_service):
    problem = shared_service.assert_problem(
        shared_service.client.post("/webhooks", json={"url": ALICE}), 422, "webhook_address_not_allowed"
    )
    assert problem["detail"] == NO_SERVER


@pytest.mark.parametrize(
    "address", ["", "alice", "a@b@c", "a b@example.org", "a@example.org?cc=b@c", "<a@example.org>"]
)
def test_an_invalid_address_is_refused(shared_service, address):
    response = shared_service.client.post("/webhooks", json={"url": f"mailto:{address}"})
    shared_service.assert_problem(response, 422, "invalid_request")


def test_the_end_of_a_job_is_mailed(settings, serve):
    with MailServer() as server:
        settings = Settings(**settings.model_dump() | {"smtp_url": server.url, "smtp_from": SENDER})
        with serve(create_app(settings), settings) as service:
            service.register("shapes")
            assert service.client.post("/webhooks", json={"url": ALICE}).json()["url"] == ALICE
            job_id = service.submit()["id"]
            service.client.post(f"/jobs/{job_id}/cancel")
            mail = message_from_bytes(server.messages.get(timeout=60), policy=policy.default)
    assert mail["Subject"] == f"frs: job {job_id} cancelled"


@pytest.mark.parametrize(
    "change", [{"smtp_from": None}, {"smtp_url": "smtp://mail"}, {"smtp_url": "smtp://a:hunter2/@mail:25"}]
)
def test_incomplete_settings_of_mail_are_refused(change):
    with pytest.raises(ValidationError) as error:
        Settings(**{"smtp_url": "smtp://mail:25", "smtp_from": SENDER} | change)
    assert "hunter" not in str(error.value)
