"""The terminal of the engine's commands."""

from rich.console import Console
from rich.markup import escape

from frs.errors import FrsError

output_console, error_console = Console(), Console(stderr=True)


def print_error(error: FrsError) -> int:
    """Print the error with its hint; return the exit status."""
    error_console.print(f"[red]{error.code}[/]: {escape(error.message)}", highlight=False)
    if error.hint:
        error_console.print(error.hint, highlight=False, markup=False)
    return 2
