"""`frs metrics --keys`: an unknown key is an error that names the nearest keys of the job."""

from typing import Any

import pytest

from cli.metrics import read_metrics
from frs_client import ServiceError

KEYS = ["train/loss", "train/loss_bbox", "train/grad_norm", "val/bbox_mAP", "val/bbox_mAP_50"]


class RecordedClient:
    """Answers like a service with one job, which has the metrics `KEYS`."""

    def __init__(self, *all_keys: str) -> None:
        self.all_keys = all_keys

    def get(self, path: str, keys: str | None = None, max_points: int = 500) -> Any:
        requested = keys.split(",") if keys else self.all_keys
        return {"series": [{"key": key} for key in requested if key in self.all_keys]}


def read(keys: str | None, *all_keys: str) -> list[str]:
    client: Any = RecordedClient(*all_keys)
    return [series["key"] for series in read_metrics(client, "job_1", keys)["series"]]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train/los", "train/loss"),
        ("loss", "train/loss"),
        ("bbox_mAP", "val/bbox_mAP"),
        ("val/bbox_map", "val/bbox_mAP"),
        ("Train/Loss", "train/loss"),
        ("train/gradnorm", "train/grad_norm"),
        ("val/bbox_mAP50", "val/bbox_mAP_50"),
    ],
)
def test_the_nearest_keys_are_named(key: str, near: str) -> None:
    with pytest.raises(ServiceError) as error:
        read(f"train/loss,{key}", *KEYS)
    assert f"no metric {key!r}. Did you mean" in error.value.message and f"`{near}`" in error.value.message


def test_a_key_unlike_all_others_is_answered_with_all_keys() -> None:
    with pytest.raises(ServiceError) as error:
        read("xyzzy", *KEYS)
    assert "Did you mean" not in error.value.message and ", ".join(KEYS) in error.value.hint


@pytest.mark.parametrize(
    "keys", [None, "train/loss", "train/loss,val/bbox_mAP", " train/loss , val/bbox_mAP ", "train/loss,"]
)
def test_known_keys_are_read(keys: str | None) -> None:
    assert "train/loss" in read(keys, *KEYS)


def test_a_job_without_metrics_yet_has_no_unknown_keys() -> None:
    assert read("train/loss") == []
