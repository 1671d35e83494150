"""`frs keys`: manage API keys. Needs an admin key, such as the one `frs up` writes to the data folder."""

from typing import Annotated

import typer

from cli import render
from cli.arguments import finite
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, render_rows, show, stdout
from frs_client import Client, Json
from frs_client.requests import path_of

app = typer.Typer(no_args_is_help=True, help="Manage API keys.")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name of the key, for your reference.")],
    owner: Annotated[
        str | None, typer.Option(show_default="NAME", help="Owner whose jobs and data sets the key can access.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            show_default="submit",
            help="read, submit (includes read), priority (priorities above 0, beside submit), metrics (GET /metrics "
            "alone) or admin (all); repeatable.",
        ),
    ] = None,
    max_active_jobs: Annotated[
        int | None, typer.Option(help="Maximum number of jobs of the owner that have not ended.")
    ] = None,
    max_disk_gb: Annotated[
        float | None, typer.Option(callback=finite, help="Maximum size of the owner's stored files in GB (10^9 bytes).")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Rate limit of the key.")] = None,
    expires_days: Annotated[float | None, typer.Option(callback=finite, help="Lifetime of the key in days.")] = None,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Create an API key. The token is shown only once."""
    body: Json = {
        "name": name,
        "owner": owner or name,
        "scopes": scope or ["submit"],
        "max_active_jobs": max_active_jobs,
        "max_disk_bytes": None if max_disk_gb is None else round(max_disk_gb * 1e9),
        "requests_per_minute": requests_per_minute,
        "expires_in_days": expires_days,
    }
    key = call_service(data, lambda client: client.post("/api-keys", body))
    show(key, lambda key: key["token"], json_)
    if not json_:
        stdout.print(
            f"Key {key['id']} of {key['owner']}. The token above is not shown again. To use it:",
            highlight=False,
        )
        stdout.print("  export FRS_API_KEY=<token>", highlight=False)


@app.command("list")
def list_keys(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """List API keys, newest first, without their tokens."""
    show(call_service(data, lambda client: {"data": list(client.each("/api-keys"))}), render_rows(render.keys), json_)


@app.command("rotate")
def rotate(
    id: Annotated[str, typer.Argument(metavar="ID")],
    grace_hours: Annotated[
        float, typer.Option(callback=finite, help="Time in which the old key is still valid.")
    ] = 24.0,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Replace an API key by a new one like it. Both are valid for a while, so that no request fails meanwhile."""
    key = call_service(
        data, lambda client: client.post(path_of("api-keys", id, "rotate"), {"grace_hours": grace_hours})
    )
    show(key, lambda key: key["token"], json_)
    if not json_:
        stdout.print(f"Key {key['id']} replaces {id}, which is valid for {grace_hours:g} h more.", highlight=False)


@app.command("revoke")
def revoke(id: Annotated[str, typer.Argument(metavar="ID")], data: DataFolder = DEFAULT_DATA_DIR) -> None:
    """Revoke an API key for good, within 1 s. The owner's jobs continue."""

    def delete(client: Client) -> Json:
        return client.delete(path_of("api-keys", id))

    call_service(data, delete)
    stdout.print(f"Key {id} is revoked.", highlight=False)
