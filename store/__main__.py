"""`python -m store init`: folders, tables, the first API key. Safe to run at every start, by any number of processes."""

import argparse

from store.schema import initialise
from store.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m store", description=__doc__)
    parser.add_argument("command", choices=["init"])
    parser.parse_args()
    settings = Settings()
    initialise(settings)
    print(f"ready: data in {settings.data}, API key in {settings.api_key_file}")


if __name__ == "__main__":
    main()
