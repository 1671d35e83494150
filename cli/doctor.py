"""`frs doctor`: check this machine and the service, with the next step for each finding."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, stdout
from frs import __version__, host_check
from frs.host_check import HostCheck
from frs_client import Client, ServiceError

app = typer.Typer()


@app.command()
def doctor(data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Check the service and, unless FRS_URL names another host, this machine. The exit status is 1 if a check fails."""
    failed = False
    for check in _checks(data):
        failed |= check.status == "error"
        if json_:
            typer.echo(check.model_dump_json())
        else:
            stdout.print(host_check.render(check), highlight=False)
    raise typer.Exit(failed)


def _checks(data: Path) -> Iterator[HostCheck]:
    if not os.environ.get("FRS_URL"):
        yield from _check_machine(data)
    yield from _check_service(data)


def _check_machine(data: Path) -> Iterator[HostCheck]:
    """Yield the checks of the host, each as soon as it has ended."""
    command = [sys.executable, "-m", "worker.doctor", "--json"]
    environment = os.environ | {"FRS_DATA": str(data.absolute())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield from map(HostCheck.model_validate_json, process.stdout)


def _check_service(data: Path) -> Iterator[HostCheck]:
    try:
        client = Client(data=data)
        service, here = client.get("/version")["frs"], __version__
        workers = client.get("/workers")["data"]
    except ServiceError as error:
        create = host_check.error if os.environ.get("FRS_URL") else host_check.warning
        yield create("service", error.message, error.hint or "Start it with `frs up`.")
        return
    if service != here:
        hint = f"Install version {service} here, or upgrade the service."
        yield host_check.warning("service", f"The service has version {service}, this command {here}.", hint)
    if workers:
        yield host_check.ok("service", f"version {service}, {len(workers)} worker{'s' if len(workers) > 1 else ''}")
    else:
        yield host_check.error(
            "service", "No worker is registered: jobs wait.", "Start one: `frs up`, or `python -m worker`."
        )
