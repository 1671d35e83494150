"""`python -m frs join`: another host of a job that the first one runs."""

from typing import Annotated

import typer

from frs.cli.console import error_console, print_error
from frs.cli.running import hide_gpus
from frs.engine.place import DEFAULT_PORT, place_of
from frs.errors import FrsError
from frs.isolation import jail


def join(
    node_rank: Annotated[
        int,
        typer.Option(min=1, envvar=["PET_NODE_RANK", "NODE_RANK"], help="Number of this node; the first one is 0."),
    ],
    master_addr: Annotated[
        str, typer.Option(envvar=["PET_MASTER_ADDR", "MASTER_ADDR"], help="Name or address of the first node.")
    ],
    master_port: Annotated[
        int, typer.Option(min=1, max=65535, envvar=["PET_MASTER_PORT", "MASTER_PORT"], help="Port of the first node.")
    ] = DEFAULT_PORT,
    local_addr: Annotated[
        str | None,
        typer.Option(
            envvar="PET_LOCAL_ADDR", show_default="the one that reaches the first", help="Address of this node."
        ),
    ] = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Wait so long for a job to start.")] = 600.0,
) -> None:
    """Take part in a job of several nodes (`resources.nodes`) that the first node runs, and end with it.

    All nodes need the job's files and its work folder under the same paths. Options and variables are torchrun's. Exit
    status: 0, this node's part has ended; 1, it has failed; 3, no job started in time; 4, the first node has ended it.
    """
    jail.isolate(network=True)
    from frs.engine import nodes

    try:
        place = place_of(master_addr, master_port, node_rank, local_addr)
        error_console.print(f"Waiting for a job at {master_addr}:{master_port}.", highlight=False)
        node = nodes.OtherNode(place, wait)
    except FrsError as error:
        print_error(error)
        raise SystemExit(3) from None
    spec = node.job.spec
    hide_gpus(spec)
    from frs.engine import launcher

    error_console.print(f"Joined as node {node_rank} of {spec.job.resources.nodes}.", highlight=False)
    try:
        outcome = launcher.join(node)
    except nodes.FirstNodeEnded as error:
        error_console.print(error, highlight=False)
        raise SystemExit(4) from None
    if outcome.error is not None:
        error_console.print(f"{outcome.error.code}: {outcome.error.message}", highlight=False, markup=False)
    raise SystemExit(1 if outcome.status == "failed" else 0)
