"""`frs webhooks`: send the events of jobs to a URL, see what arrived, send again."""

from collections.abc import Iterable
from itertools import islice
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, render_rows, show, stdout
from frs_client import Client, Json
from frs_client.requests import path_of

app = typer.Typer(no_args_is_help=True, help="Send the events of jobs to a URL.")
WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK_ID")]


@app.command("add")
def add(
    url: Annotated[str, typer.Argument(help="http or https URL of the receiver.")],
    events: Annotated[
        str | None,
        typer.Option(
            show_default="the last three",
            help="Events, comma-separated: job.started, job.paused, job.succeeded, job.failed, job.cancelled.",
        ),
    ] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Create a webhook for the jobs of the key's owner. The secret of its signatures is shown only once."""
    body: Json = {"url": url}
    if events is not None:
        body["events"] = [event.strip() for event in events.split(",")]
    webhook = call_service(data, lambda client: client.post("/webhooks", body))
    show(webhook, lambda webhook: webhook["secret"], json_)
    if not json_:
        text = f"Webhook {webhook['id']}. The secret above, with which the receiver verifies, is not shown again."
        stdout.print(text, highlight=False)


@app.command("list")
def list_webhooks(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """List webhooks, newest first: status, events and URL."""
    show(call_service(data, lambda client: {"data": list(client.each("/webhooks"))}), render_rows(_webhooks), json_)


@app.command("deliveries")
def deliveries(
    id: WebhookId,
    status: Annotated[str | None, typer.Option(help="Only pending, delivered or dead ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of deliveries.")] = 20,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """List the deliveries of a webhook, newest first, with the newest attempt of each."""

    def read(client: Client) -> Json:
        rows = client.each(path_of("webhooks", id, "deliveries"), status=status, limit=min(limit, 200))
        return {"data": list(islice(rows, limit))}

    show(call_service(data, read), render_rows(_deliveries), json_)


@app.command("redeliver")
def redeliver(
    id: WebhookId,
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY_ID")],
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Send a delivery again now; failed attempts are repeated for 24 hours."""
    path = path_of("webhooks", id, "deliveries", delivery_id, "redeliver")
    delivery = call_service(data, lambda client: client.post(path))
    show(delivery, lambda delivery: f"Delivery {delivery['id']} is sent again.", json_)


@app.command("delete")
def delete(id: WebhookId, data: DataFolder = DEFAULT_DATA_DIR) -> None:
    """Delete a webhook and the list of its deliveries."""
    call_service(data, lambda client: client.delete(path_of("webhooks", id)))
    stdout.print(f"Webhook {id} is deleted.", highlight=False)


def _webhooks(rows: Iterable[Json]) -> Table:
    table = _table("id", "owner", "status", "since", "events", "url")
    for row in rows:
        since = row["dead_since"] or row["failing_since"] or row["created_at"]
        texts = (row["id"], row["owner"], row["status"], f"{since[:19]}Z", ", ".join(row["events"]), row["url"])
        table.add_row(*map(Text, texts))
    return table


def _deliveries(rows: Iterable[Json]) -> Table:
    table = _table("id", "created", "event", "job", "status", "attempt", "answer")
    for row in rows:
        newest = row["attempts"][-1] if row["attempts"] else {"status_code": None, "error": None}
        answer = newest["error"] or str(newest["status_code"] or "")
        texts = (row["id"], f"{row['created_at'][:19]}Z", row["event"], row["job_id"], row["status"])
        table.add_row(*map(Text, (*texts, str(row["attempt"]), answer)))
    return table


def _table(*headings: str) -> Table:
    """Return an empty table whose last column wraps on a narrow terminal."""
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1], overflow="fold")
    return table
