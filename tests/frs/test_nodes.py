"""A job on two nodes, each with its own loopback address: `python -m frs train` on the first, `join` on the second."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine_command import FRS, frs, frs_in_this_process, read_until, start_trainer, write_spec
from test_launcher import LONG, assert_gone, outcomes, ranks, remaining_events
from tiny import described, job
from waiting import until

from frs import events
from frs.detectors import weights
from frs.engine import launcher, nodes
from frs.engine.nodes import FirstNode, FirstNodeEnded, OtherNode
from frs.engine.place import Place, place_in
from frs.engine.trainer import failure
from frs.errors import NodesUnavailable, OutOfMemory
from frs.resolved import ResolvedSpec, resolve
from frs.spec import JobSpec

Join = Callable[[], subprocess.Popen[bytes]]
FIRST, SECOND = "127.0.0.1", "127.0.0.2"
TWO = {"devices": 0, "nodes": 2}
EXACT = {"teacher": described("fcos", neck_channels=32), "student": described("fcos")}
"""Detectors whose losses count positives over all processes, so that two processes train like one."""
SAME_IMAGES = {"max_steps": 4, "flip_prob": 0, "optimizer": {"name": "sgd", "learning_rate": 0.1}}
"""A schedule without random changes of the images, which each process draws for itself."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port of the first node, in the environment of both."""
    with socket.socket() as probe:
        probe.bind((FIRST, 0))
        number = int(probe.getsockname()[1])
    monkeypatch.setenv("MASTER_ADDR", FIRST)
    monkeypatch.setenv("MASTER_PORT", str(number))
    return number


@pytest.fixture
def joined() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of `join` that the test has started; they end with it."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Return a function that starts the second node; it ends with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [*FRS, "join", "--node-rank", "1", "--local-addr", SECOND]
        processes.append(subprocess.Popen(command, stderr=(tmp_path / f"join{len(processes)}.log").open("wb")))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def last_student(folder: Path, emitted: list[events.Event]) -> dict[str, torch.Tensor]:
    [*_, file] = [event for event in emitted if isinstance(event, events.Checkpoint) and "last" in event.labels]
    return weights.read(folder / file.path)["state_dict"]


@pytest.mark.slow
def test_two_nodes_end_with_the_weights_of_one_process(
    tmp_path: Path, data: Path, models: Path, join: Join, port: int
) -> None:
    states = {}
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        process, reader = start_trainer(
            folder, data, models, resources=TWO | {"nodes": number}, schedule=SAME_IMAGES, **EXACT
        )
        second = join() if number == 2 else None
        emitted = remaining_events(reader)
        assert process.wait(60) == 0 and (second is None or second.wait(60) == 0)
        assert [outcome.status for outcome in outcomes(emitted)] == ["succeeded"]
        states[number] = last_student(folder / "work", emitted)
    assert states[1]["bbox_head.cls_convs.0.conv.bias"].norm() > 1e-4, "it starts at 0"
    for name, tensor in states[1].items():
        torch.testing.assert_close(states[2][name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_killed_node_ends_the_attempt_which_resumes_and_stops_as_one(
    tmp_path: Path, data: Path, models: Path, join: Join, port: int
) -> None:
    schedule = LONG | {"checkpoint_every": 1}
    process, reader = start_trainer(tmp_path, data, models, resources=TWO, schedule=schedule)
    second = join()
    read_until(reader, events.Checkpoint)
    processes = ranks(process.pid) + ranks(second.pid)
    second.kill()
    [outcome] = outcomes(remaining_events(reader))
    assert process.wait(60) == 1 and len(processes) == 2
    assert_gone(*processes)
    assert outcome.error is not None and outcome.error.code == "nodes_unavailable"
    assert outcome.error.message == "Node 1 has not answered for 30 s."

    process, reader = start_trainer(tmp_path, data, models, resources=TWO, schedule=schedule)
    second = join()
    emitted = read_until(reader, events.Metrics)
    assert [event.to_step > 0 for event in emitted if isinstance(event, events.Rewound)] == [True]
    second.terminate()
    assert [outcome.status for outcome in outcomes(remaining_events(reader))] == ["interrupted"]
    assert process.wait(60) == 75 and second.wait(60) == 0


def spec(data: Path, models: Path, **changes: Any) -> ResolvedSpec:
    return resolve(JobSpec.model_validate(job(resources=TWO, **changes)), data, models)


def place(port: int, node: int) -> Place:
    return Place(FIRST, port, node, FIRST)


def test_the_outcome_of_another_node_is_that_of_the_job(tmp_path: Path, data: Path, models: Path, port: int) -> None:
    first = FirstNode(place(port, 0), spec(data, models), tmp_path)
    second = OtherNode(place(port, 1), 0)
    assert second.job.workdir == tmp_path and second.job.spec.train.images.is_dir()
    assert first.failure_elsewhere() is None
    second.report(failure(OutOfMemory("CUDA out of memory")))
    until(lambda: first.failure_elsewhere(), 10)


def test_nodes_that_do_not_join_are_named(
    tmp_path: Path, data: Path, models: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "JOIN_SECONDS", -1)
    first = FirstNode(place(port, 0), spec(data, models), tmp_path)
    with pytest.raises(NodesUnavailable, match=f"Node 1 did not join at {FIRST}:{port} within"):
        first.failure_elsewhere()


@pytest.mark.parametrize(("node", "message"), [(2, "has the nodes 0 to 1"), (1, "Node 1 has joined already")])
def test_a_node_of_a_wrong_number_cannot_join(
    tmp_path: Path, data: Path, models: Path, port: int, node: int, message: str
) -> None:
    first = FirstNode(place(port, 0), spec(data, models), tmp_path)
    OtherNode(place(port, 1), 0)
    with pytest.raises(NodesUnavailable, match=message):
        OtherNode(place(port, node), 0)
    del first


def test_a_node_without_a_file_of_the_job_names_its_path(tmp_path: Path, data: Path, models: Path, port: int) -> None:
    first = FirstNode(place(port, 0), spec(data, models), tmp_path / "absent")
    outcome = launcher.join(OtherNode(place(port, 1), 0))
    assert outcome.error is not None and outcome.error.code == "file_not_on_node"
    assert str(tmp_path / "absent") in outcome.error.message
    assert first.failure_elsewhere() == outcome


def test_a_node_notices_the_end_of_the_first_one(
    tmp_path: Path, data: Path, models: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FirstNode(place(port, 0), spec(data, models), tmp_path)
    second = OtherNode(place(port, 1), 0)
    second.failure_elsewhere()
    monkeypatch.setattr(nodes, "ENDED_SECONDS", 0.0)
    del first
    with pytest.raises(FirstNodeEnded):
        until(second.failure_elsewhere, 10)


def test_two_jobs_cannot_use_one_port(tmp_path: Path, data: Path, models: Path, port: int) -> None:
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(NodesUnavailable, match=f"Port {port} of this host cannot be opened"):
            FirstNode(place(port, 0), spec(data, models), tmp_path)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "the address of the first one is not set"),
        ({"MASTER_ADDR": "nowhere.invalid"}, "'nowhere.invalid' cannot be used"),
        ({"MASTER_ADDR": FIRST, "MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
        ({"MASTER_ADDR": FIRST, "MASTER_PORT": "65536"}, "MASTER_PORT is '65536'"),
    ],
)
def test_an_unusable_address_of_the_first_node_is_an_error(variables: dict[str, str], message: str) -> None:
    with pytest.raises(NodesUnavailable, match=message):
        place_in(variables)


def test_a_name_that_means_this_host_alone_is_no_address_of_the_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's /etc/hosts gives a host's own name the address 127.0.1.1."""
    found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.1.1", 29500))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(NodesUnavailable, match="node7 is 127.0.0.1 on this host"):
        place_in({"MASTER_ADDR": "node7"})
    assert place_in({"MASTER_ADDR": "node7", "PET_LOCAL_ADDR": "10.0.0.7"}).address == "10.0.0.7"


def test_torchruns_variables_name_the_first_node() -> None:
    variables = {"PET_MASTER_ADDR": FIRST, "PET_MASTER_PORT": "1234", "PET_LOCAL_ADDR": SECOND}
    assert place_in(variables) == Place(FIRST, 1234, 0, SECOND)
    assert place_in({"MASTER_ADDR": FIRST}) == Place(FIRST, 29500, 0, FIRST)


def test_join_ends_with_3_if_no_job_starts_in_time(port: int) -> None:
    completed = frs("join", "--node-rank", 1, "--wait", 0)
    assert completed.returncode == 3
    assert f"No job of several nodes has started at {FIRST}:{port} within 0 s." in " ".join(completed.stderr.split())


def test_pairs_of_runs_on_several_nodes_need_the_service(tmp_path: Path, data: Path, models: Path) -> None:
    options = ("--data", data, "--models", models, "--set", "baseline=true", "--set", "resources.nodes=2")
    result = frs_in_this_process("train", write_spec(tmp_path), *options)
    assert result.exit_code == 2 and "several nodes" in result.stderr
