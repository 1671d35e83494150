"""Address and API key of the service: an argument, else the environment, else the data folder of `frs up`."""

import os
from pathlib import Path

from frs_client.errors import ServiceError

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_DATA_DIR = Path("data")


def resolve(url: str | None, api_key: str | None, data: Path | None) -> tuple[str, str]:
    """Return the address and the API key: the arguments, else `FRS_URL` and `FRS_API_KEY`, else of the data folder.

    `frs up` writes the files `url` and `api-key` to its data folder; an absent one is `FRS_DATA`, else `./data`.
    Raises ServiceError if there is no API key.
    """
    folder = data or Path(os.environ.get("FRS_DATA") or DEFAULT_DATA_DIR)
    key = api_key or os.environ.get("FRS_API_KEY") or _read_optional(folder, "api-key")
    if not key:
        raise ServiceError(
            f"No API key: FRS_API_KEY is not set and {folder / 'api-key'} does not exist.",
            "Set FRS_API_KEY, or name the data folder of `frs up` with FRS_DATA (command line: --data).",
        )
    if url is None:
        url = os.environ.get("FRS_URL") or _read_optional(folder, "url") or DEFAULT_URL
    return url, key


def _read_optional(folder: Path, name: str) -> str | None:
    try:
        return (folder / name).read_text("utf-8-sig", errors="replace").strip()
    except OSError:
        return None
