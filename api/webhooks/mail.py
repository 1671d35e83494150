"""Events as e-mail, through the operator's mail server, to addresses in the operator's domains."""

import json
import smtplib
import ssl
import time
from contextlib import closing, suppress
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from anyio import to_thread

from store.settings import Settings
from store.webhooks.deliveries import Claim, Outcome

MAILTO = "mailto:"
NO_SERVER = "The service sends no mail: an operator sets FRS_SMTP_URL and FRS_SMTP_FROM."
OTHER_DOMAIN = "The service sends no mail to this domain: an operator allows domains with FRS_MAIL_DOMAINS."
_STEP_SECONDS = 5.0
"""Timeout of each step of an SMTP session."""


class Mailer:
    """Sends claimed deliveries whose URL is `mailto:ADDRESS`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def send(self, claim: Claim) -> Outcome:
        """Send the mail and return the outcome, without a status code; raises nothing."""
        started = time.monotonic()
        error = refusal(claim.url, self._settings)
        if error is None:
            try:
                await to_thread.run_sync(_send, message(claim, self._settings.smtp_from or ""), self._settings)
            except Exception as exception:
                error = _error_text(exception)
        return Outcome(None, error, round(time.monotonic() - started, 3))


def refusal(url: str, settings: Settings) -> str | None:
    """Return why the service sends no mail to this `mailto:` URL; None: it does."""
    if settings.smtp_url is None or settings.smtp_from is None:
        return NO_SERVER
    allowed = settings.mail_domains or (_domain(settings.smtp_from),)
    return None if _domain(url) in {domain.lower() for domain in allowed} else OTHER_DOMAIN


def message(claim: Claim, sender: str) -> EmailMessage:
    """Return the mail of an event; its `Message-ID` is equal in all attempts."""
    event = json.loads(claim.body)
    job, error = event["data"], event["data"]["error"] or {}
    what = event["type"].removeprefix("job.")
    lines = [f"Job {job['name'] or job['id']} of {job['owner']}: {what}."]
    lines += [error[field] for field in ("message", "hint") if error.get(field)]
    lines += ["", f"Time: {event['timestamp']}", f"Status and report: frs job {job['id']}"]
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, claim.url.removeprefix(MAILTO)
    mail["Subject"] = f"frs: job {' '.join((job['name'] or job['id']).split())} {what}"
    mail["Date"] = formatdate(claim.at)
    mail["Message-ID"] = f"<{claim.delivery_id}@{_domain(sender)}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join(lines))
    return mail


def _send(mail: EmailMessage, settings: Settings) -> None:
    """Send the mail. A password is only sent over TLS: without STARTTLS, the login fails."""
    url, context = urlsplit(settings.smtp_url or ""), ssl.create_default_context()
    host, port = url.hostname or "", url.port or 0
    is_tls = url.scheme == "smtps"
    server = (
        smtplib.SMTP_SSL(host, port, timeout=_STEP_SECONDS, context=context)
        if is_tls
        else smtplib.SMTP(host, port, timeout=_STEP_SECONDS)
    )
    with closing(server):
        try:
            if not is_tls and (url.username or _offers_tls(server)):
                server.starttls(context=context)
            if url.username:
                server.login(unquote(url.username), unquote(url.password or ""))
            server.send_message(mail)
        finally:
            with suppress(smtplib.SMTPException):  # the server has taken or refused the mail already
                server.quit()


def _offers_tls(server: smtplib.SMTP) -> bool:
    server.ehlo_or_helo_if_needed()
    return server.has_extn("starttls")


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


def _error_text(error: Exception) -> str:
    """Return the error without the server's texts, which may contain addresses."""
    match error:
        case smtplib.SMTPResponseException():
            return f"The mail server answered {error.smtp_code}."
        case smtplib.SMTPRecipientsRefused():
            [(code, _), *_] = error.recipients.values()
            return f"The mail server refused the address with {code}."
        case _:
            return f"The mail server did not take the message: {type(error).__name__}."
