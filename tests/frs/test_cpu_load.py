"""The load of the machine while something is timed."""

from pathlib import Path

import pytest

from frs import cpu_load


@pytest.fixture
def loadavg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cpu_load, "LOADAVG", tmp_path / "loadavg")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return tmp_path / "loadavg"


def test_the_load_is_the_number_of_threads_that_want_to_run_per_cpu(loadavg: Path) -> None:
    loadavg.write_text("0.00 0.01 0.05 3/117 6648\n")
    assert cpu_load.cpu_load() == 1.5


@pytest.mark.parametrize("content", [None, "", "0.0 0.0 0.0 many/117 1"])
def test_the_load_is_unknown_without_the_kernels_file(loadavg: Path, content: str | None) -> None:
    if content is not None:
        loadavg.write_text(content)
    assert cpu_load.cpu_load() is None


def test_unknown_samples_are_left_out_of_the_mean() -> None:
    assert cpu_load.mean_load([1.0, None, 2.0]) == 1.5
    assert cpu_load.mean_load([None]) is None


def test_only_a_time_under_load_needs_a_caveat() -> None:
    assert [cpu_load.caveat(load) for load in (None, 0.5, 1.0)] == ["", "", ""]
    assert cpu_load.caveat(2.0) == " (measured on a busy machine)"
