"""The `frs` command line: run the service locally and use its HTTP API."""
