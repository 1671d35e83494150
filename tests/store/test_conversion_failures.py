"""Failures of the process that unpacks an upload differ: the archive, memory, the host, or a crash."""

import errno
import sys
from pathlib import Path

import pytest

from store.artifacts import unpacking
from store.artifacts.unpacking import ConversionFailed
from store.settings import Settings


def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Run `script` in place of the converter."""
    monkeypatch.setattr(unpacking, "COMMAND", (sys.executable, "-c", script))
    unpacking.convert(Settings(data=tmp_path), tmp_path / "archive", tmp_path / "part", None)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.exit(1)", "status 1"),
        ("raise TypeError", "status 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import os; os.abort()", "signal 6"),
        ("import sys; print('no JSON'); sys.exit(3)", "status 3"),
    ],
)
def test_a_crash_is_no_lack_of_memory(tmp_path, monkeypatch, script, reason):
    with pytest.raises(ConversionFailed) as failure:
        convert(tmp_path, monkeypatch, script)
    assert failure.value.error.code == "bad_dataset"
    assert f"ended with {reason}" in failure.value.error.message


def test_a_killed_process_ran_out_of_memory(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="killed") as failure:
        convert(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert failure.value.errno == errno.ENOMEM


IN_CONVERTER = """
import sys
from frs.dataset.upload import convert
def fail(*arguments):
    raise {error}
convert.unpack = fail
sys.exit(convert.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ("TypeError('unhashable')", "bad_dataset", "internal error TypeError"),
        ("RecursionError()", "bad_dataset", "internal error RecursionError"),
        ("OSError(36, 'File name too long')", "bad_dataset", "File name too long"),
        ("FileNotFoundError(2, 'No such file')", "bad_dataset", "No such file"),
        ("MemoryError()", "archive_too_large", "does not fit into memory"),
    ],
)
def test_an_error_that_an_archive_causes_refuses_the_archive(tmp_path, monkeypatch, error, code, text):
    with pytest.raises(ConversionFailed) as failure:
        convert(tmp_path, monkeypatch, IN_CONVERTER.format(error=error))
    assert failure.value.error.code == code
    assert text in failure.value.error.message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_an_error_of_the_host_is_not_the_archives_fault(tmp_path, monkeypatch, number):
    with pytest.raises(OSError, match="error while unpacking") as failure:
        convert(tmp_path, monkeypatch, IN_CONVERTER.format(error=f"OSError({number}, 'x')"))
    assert failure.value.errno == number
