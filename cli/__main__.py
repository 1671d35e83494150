"""`python -m cli`, which is the `frs` command."""

from cli.main import app

app()
