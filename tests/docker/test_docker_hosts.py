"""Workers with separate disks and object storage; one job in several processes."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from moto.server import ThreadedMotoServer
from stack import FILES, Images, Stack, free_port, run
from test_docker_life import recorded_steps, rewound_to

from frs.detectors.weights import read, state_of

pytestmark = pytest.mark.docker
KEY = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret", "AWS_REGION": "us-east-1"}


@pytest.fixture
def gateway(images: Images) -> str:
    """The address of this host as seen from containers."""
    rows = run(["docker", "run", "--rm", images.api, "cat", "/proc/net/route"]).splitlines()[1:]
    [default] = {row.split()[2] for row in rows if row.split()[1] == "00000000"}
    return socket.inet_ntoa(bytes.fromhex(default)[::-1])


@pytest.fixture
def storage(gateway: str) -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address=gateway, port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    subprocess.run(["curl", "-sf", "-X", "PUT", f"{url}/frs"], check=True, capture_output=True)
    yield {**KEY, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "FRS_ARTIFACTS_URL": "s3://frs/team"}
    server.stop()


def test_a_job_continues_on_another_host_from_object_storage_after_its_host_died(
    stack_with: Callable[..., Stack], storage: dict[str, str], gateway: str
):
    ports = {"FRS_SHARE_POSTGRES_PORT": str(free_port()), "FRS_SHARE_REDIS_PORT": str(free_port())}
    shared = {"FRS_SHARE_ADDRESS": gateway, "FRS_INNER_ONLY": "false", **ports}
    first = stack_with(files=(*FILES, "docker/compose.share.yml"), **storage, **shared)
    first.add_bccd()
    job_id = first.submit(schedule__max_steps=300)
    first.wait_for_step(job_id, 25)
    addresses = {
        "FRS_DATABASE_URL": f"postgresql://frs:{first.setting('POSTGRES_PASSWORD')}@{gateway}:{ports['FRS_SHARE_POSTGRES_PORT']}/frs",
        "FRS_BROKER_URL": f"redis://:{first.setting('REDIS_PASSWORD')}@{gateway}:{ports['FRS_SHARE_REDIS_PORT']}/0",
    }
    second = stack_with(only="worker", FRS_INNER_ONLY="false", **storage, **addresses)
    run(["docker", "kill", first.containers("worker")[0]])
    job = first.wait_until_ended(job_id)
    assert job["status"] == "succeeded" and job["attempt"] == 2, first.logs(job_id)
    assert rewound_to(first, job_id)[-1] >= 20
    assert recorded_steps(first, job_id) == list(range(1, 301))
    assert second.inside("worker", "sh", "-c", "ls /data/artifacts 2>/dev/null | wc -l").strip() == "0"


def test_two_processes_train_the_same_student_as_one_with_the_whole_batch(stack: Stack, tmp_path: Path):
    fcos = {"architecture": "fcos", "backbone": {"depth": 18, "width": 16}, "neck_channels": 32, "stacked_convs": 1}
    changes = {
        "teacher": {**fcos, "init": "random"},
        "student": {**fcos, "backbone": {"depth": 18, "width": 8}, "init": "random"},
        "schedule": {
            "max_steps": 10,
            "batch_size": 4,
            "image_size": [160, 128],
            "optimizer": {"name": "sgd", "learning_rate": 0.01},
        },
        "distillation": {"accept_weak_teacher": True, "feature_weight": 0.01, "logit_weight": 0.1},
    }
    students = []
    for processes in (1, 2):
        job_id = stack.submit(**changes, resources={"processes": processes})
        assert stack.wait_until_ended(job_id)["status"] == "succeeded", stack.logs(job_id)
        [weights] = [
            path for path in stack.client.jobs.pull(job_id, tmp_path / str(processes)) if path.suffix == ".pth"
        ]
        students.append(state_of(read(weights), weights.name))
    one, two = students
    assert one.keys() == two.keys()
    max_difference = max((one[name].double() - two[name].double()).abs().max().item() for name in one)
    print(f"\nmaximum difference: {max_difference:.2e}")
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
