"""Run the engine's command line: `python -m frs`."""

from frs.cli.main import app

if __name__ == "__main__":
    app()
