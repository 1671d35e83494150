"""`frs keys`: who may use the service. Needs an admin's key, such as the one `frs up` leaves in the data folder."""

from typing import Annotated

import typer

from cli import render
from cli.client import Client, Json
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, rows, screen, show

app = typer.Typer(no_args_is_help=True, help="API keys: who may use the service, and for what.")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    owner: Annotated[str | None, typer.Option(help="Whose jobs and data sets it opens [NAME].")] = None,
    scope: Annotated[str, typer.Option(help="read, submit or admin; each includes the ones before it.")] = "submit",
    max_active_jobs: Annotated[int | None, typer.Option(help="Jobs of its owner that have not ended.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="How often it may ask.")] = None,
    expires_days: Annotated[float | None, typer.Option(help="It ends by itself after so many days.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Make a key. Its token is shown this once."""
    body: Json = {
        "name": name,
        "owner": owner or name,
        "scopes": [scope],
        "max_active_jobs": max_active_jobs,
        "requests_per_minute": requests_per_minute,
        "expires_in_days": expires_days,
    }
    key = call_service(data, lambda client: client.post("/api-keys", body))
    show(key, lambda key: key["token"], json_)
    if not json_:
        screen.print(
            f"Key {key['id']} of {key['owner']}. The token above is not shown again; whoever has it sets:",
            highlight=False,
        )
        screen.print("  export FRS_API_KEY=<token>", highlight=False)


@app.command("list")
def list_keys(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """All keys, newest first; never their tokens."""
    show(call_service(data, lambda client: {"data": list(client.each("/api-keys"))}), rows(render.keys), json_)


@app.command("revoke")
def revoke(id: Annotated[str, typer.Argument(metavar="ID")], data: DataFolder = DEFAULT_DATA_DIR) -> None:
    """Shut a key out for good, within a second. Its owner's jobs go on."""

    def delete(client: Client) -> Json:
        return client.delete(f"/api-keys/{id}")

    call_service(data, delete)
    screen.print(f"Key {id} is revoked.", highlight=False)
