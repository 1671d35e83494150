"""One data folder has at most one `frs up`: a second one is refused with the process id of the first."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.up import lock_folder
from frs_client import ServiceError

HOLDER = """
import sys
from pathlib import Path
from cli.up import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print(flush=True)
input()
"""


def other_spelling(folder: Path, kind: str) -> Path:
    """Return another path of the same folder."""
    if kind == "link":
        (folder.parent / "link").symlink_to(folder)
        return folder.parent / "link"
    return {"same": folder, "dots": folder / ".." / folder.name, "relative": Path(os.path.relpath(folder))}[kind]


@pytest.mark.parametrize("kind", ["same", "dots", "relative", "link"])
def test_up_refuses_a_folder_in_use(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with lock_folder(folder), socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        result = CliRunner().invoke(app, ["up", "--data", str(other_spelling(folder, kind)), "--port", str(port)])
    assert result.exit_code == 1
    text = " ".join(result.stderr.split())
    assert f"as process {os.getpid()}" in text and "--data" in text
    assert sorted(path.name for path in folder.iterdir()) == ["up.pid"], "nothing was started or changed"


def test_a_folder_is_free_again_when_its_service_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        lock_folder(tmp_path).close()


def test_a_folder_is_free_again_when_its_process_was_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline()
    with pytest.raises(ServiceError, match=f"as process {holder.pid}"):
        lock_folder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    lock_folder(tmp_path).close()


def test_other_folders_are_not_locked(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "a"), lock_folder(tmp_path / "b"):
        pass


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="cannot be written"):
        lock_folder(tmp_path / "file")
