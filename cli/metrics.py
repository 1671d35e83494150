"""Metric series of a job, by keys that the user types."""

import difflib

from frs_client import Client, Json, ServiceError
from frs_client.requests import path_of

_NEAR_KEYS = 3


def read_metrics(client: Client, job_id: str, keys: str | None) -> Json:
    """Return the metric series of a job; `keys` are separated by commas, None: all.

    Raises ServiceError with the nearest keys if the job has metrics, but none of that key.
    """
    wanted = [key.strip() for key in keys.split(",") if key.strip()] if keys is not None else None
    answer = client.get(path_of("jobs", job_id, "metrics"), keys=",".join(wanted) if wanted else None)
    unknown = set(wanted or ()) - {series["key"] for series in answer["series"]}
    if unknown:
        all_keys = [series["key"] for series in client.get(path_of("jobs", job_id, "metrics"), max_points=2)["series"]]
        if all_keys:
            raise ServiceError(
                "\n".join(_describe(key, all_keys) for key in sorted(unknown)), f"Keys: {', '.join(all_keys)}."
            )
    return answer


def _describe(key: str, all_keys: list[str]) -> str:
    names = {name.lower(): name for name in all_keys} | {name.lower().rpartition("/")[2]: name for name in all_keys}
    near = difflib.get_close_matches(key.lower(), names, n=2 * _NEAR_KEYS)
    keys = list(dict.fromkeys(names[name] for name in near))[:_NEAR_KEYS]
    return f"The job has no metric {key!r}.{f' Did you mean {_join(keys)}?' if keys else ''}"


def _join(keys: list[str]) -> str:
    return " or ".join(f"`{key}`" for key in keys)
