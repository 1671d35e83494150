"""`python -m store init`: folders, tables, the first API key. Safe to run at every start, by any number of processes."""

import argparse

from pydantic import ValidationError

from store.schema import initialise
from store.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m store", description=__doc__)
    parser.add_argument("command", choices=["init"])
    parser.parse_args()
    try:
        settings = Settings()
    except ValidationError as error:
        raise SystemExit("; ".join(fault["msg"] for fault in error.errors())) from None
    initialise(settings)
    print(f"ready: data in {settings.data}, API key in {settings.api_key_file}")


if __name__ == "__main__":
    main()
