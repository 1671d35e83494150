"""How many tasks the Slurm submitter adds; scripts stand in for sbatch and squeue. tests/deploy has Slurm itself."""

import subprocess

import pytest
from sqlalchemy import update
from waiting import until

from store.db.tables import Job
from store.requests import worker_requests
from store.states import RequestKind
from worker import slurm
from worker.slurm import Options, SlurmError, Submitter


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Return a folder on PATH with scripts: squeue prints the file `tasks`, sbatch appends to the file `submitted`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "tasks").write_text("")
    (folder / "submitted").write_text("")
    write_script(folder / "squeue", f"cat {folder}/tasks")
    write_script(folder / "sbatch", f'echo "$@" >> {folder}/submitted; echo 7')
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def write_script(path, line):
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def submitter(harness, gpus=(0,), max_tasks=10, poll_seconds=0.0, nodes=(1,)):
    options = Options(gpus, max_tasks, "frs", slurm.SCRIPT, ("--partition=x",), nodes)
    return Submitter(harness.settings, harness.database, options, poll_seconds)


def submit_jobs(harness, *devices):
    job_ids = [harness.submit() for _ in devices]
    for job_id, number in zip(job_ids, devices, strict=True):
        harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(devices=number)))  # noqa: B023
    return job_ids


def submitted(cluster):
    lines = (cluster / "submitted").read_text().splitlines()
    (cluster / "submitted").write_text("")
    return lines


def test_a_task_is_submitted_for_each_job_and_worker_request(harness, cluster):
    submit_jobs(harness, None, None)
    harness.do(worker_requests.add, RequestKind.IMPORT, {}, owner="me")
    assert submitter(harness).submit() == 3
    [command] = submitted(cluster)
    expected = "--parsable --job-name=frs-0gpu --array=1-3 --partition=x"
    assert command == f"{expected} {slurm.SCRIPT} --min-gpus 0"


def test_a_job_runs_in_the_smallest_task_that_it_fits(harness, cluster):
    submit_jobs(harness, None, 0, 1, 2, 3, 4, 5)
    assert submitter(harness, gpus=(1, 2, 4)).submit() == 6
    assert [command.partition(" --partition")[0] for command in submitted(cluster)] == [
        "--parsable --job-name=frs-1gpu --array=1-3 --gres=gpu:1",
        "--parsable --job-name=frs-2gpu --array=1-1 --gres=gpu:2",
        "--parsable --job-name=frs-4gpu --array=1-2 --gres=gpu:4",
    ]


def test_a_job_of_several_nodes_gets_a_task_of_as_many(harness, cluster):
    submit_jobs(harness, 1)
    for nodes in (2, 4):
        harness.submit({"resources": {"nodes": nodes}})
    assert submitter(harness, gpus=(1,), nodes=(1, 2)).submit() == 2
    assert [command.partition(" --partition")[0] for command in submitted(cluster)] == [
        "--parsable --job-name=frs-1gpu --array=1-1 --gres=gpu:1",
        "--parsable --job-name=frs-1gpu-2nodes --array=1-1 --nodes=2 --ntasks=2 --gres=gpu:1",
    ]


def test_the_script_starts_the_other_nodes_without_the_secrets_of_the_service(cluster, tmp_path):
    write_script(cluster / "scontrol", "echo node7; echo node8; echo node9")
    write_script(cluster / "srun", f'echo "$MASTER_ADDR:$MASTER_PORT $@" > {tmp_path}/srun')
    completed = run_script(
        cluster, tmp_path, SLURM_JOB_NUM_NODES="3", SLURM_JOB_NODELIST="node[7-9]", SLURM_JOB_ID="41234",
        FRS_DATA=str(tmp_path), NCCL_DEBUG="WARN", FRS_DATABASE_URL="postgresql://secret",
    )  # fmt: skip
    assert completed.stdout.split() == ["--once", "--nodes", "3", "--min-gpus", "1"]
    until((tmp_path / "srun").exists)
    command = (tmp_path / "srun").read_text()
    assert command.startswith("node7:21234 --nodes=2 --ntasks=2 --relative=1 --export=")
    assert command.strip().endswith("exec python3 -m frs join --node-rank $((SLURM_PROCID + 1))")
    names = command.partition("--export=")[2].split()[0].split(",")
    assert {"MASTER_ADDR", "MASTER_PORT", "PATH", "NCCL_DEBUG"} <= {*names} and "FRS_DATABASE_URL" not in names


def test_the_script_needs_a_shared_folder_for_several_nodes(cluster, tmp_path):
    completed = run_script(cluster, tmp_path, SLURM_JOB_NUM_NODES="2")
    assert completed.returncode == 1 and "set FRS_DATA to a folder that all nodes share" in completed.stderr


def test_the_script_of_one_node_starts_a_worker_alone(cluster, tmp_path):
    completed = run_script(cluster, tmp_path, SLURM_JOB_NUM_NODES="1", TMPDIR=str(tmp_path))
    assert completed.stdout.split() == ["--once", "--min-gpus", "1"]


def run_script(cluster, tmp_path, **variables):
    """Run the batch script with a worker that prints its arguments."""
    environment = {"PATH": f"{cluster}:/usr/bin:/bin", "WORKER_COMMAND": "echo"} | variables
    command = ["bash", str(slurm.SCRIPT), "--min-gpus", "1"]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_a_task_leaves_jobs_that_fit_a_smaller_one_to_that(harness, cluster):
    submit_jobs(harness, 4)
    submitter(harness, gpus=(1, 4)).submit()
    assert submitted(cluster)[0].endswith("--min-gpus 2")


def test_waiting_tasks_count_and_those_that_run_a_job_do_not(harness, cluster):
    submit_jobs(harness, None, None, None, None)
    running = harness.claim().job_id
    harness.do(lambda session: session.execute(update(Job).where(Job.id == running).values(lease_owner="slurm-1-2:9")))
    (cluster / "tasks").write_text(
        "frs-0gpu 1 1 PENDING\nfrs-0gpu 1 2 RUNNING\nfrs-0gpu 1 3 RUNNING\nfrs-0gpu 1 4 COMPLETING\n"
    )
    assert submitter(harness).submit() == 1


def test_a_job_whose_worker_was_killed_gets_a_task_when_its_lease_has_expired(harness, cluster):
    submit_jobs(harness, None)
    job_id = harness.claim().job_id
    assert submitter(harness).submit() == 0
    harness.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=1.0)))
    assert submitter(harness).submit() == 1


def test_there_are_never_more_tasks_than_allowed(harness, cluster):
    submit_jobs(harness, *[1] * 5, *[2] * 5)
    (cluster / "tasks").write_text("frs-2gpu 1 1 PENDING\n")
    assert submitter(harness, gpus=(1, 2), max_tasks=7).submit() == 6
    assert [command.split()[2] for command in submitted(cluster)] == ["--array=1-5", "--array=1-1"]


def test_jobs_that_no_task_claims_are_tried_ever_less_often(harness, cluster, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(slurm.time, "monotonic", lambda: now[0])
    submit_jobs(harness, None)
    submitting = submitter(harness, poll_seconds=10)
    tried_at = []
    for now[0] in map(float, range(0, 2000, 10)):
        if submitting.submit():
            tried_at.append(now[0])
    assert tried_at[:7] == [0, 10, 30, 70, 150, 310, 630] and tried_at[7] == 1230
    submit_jobs(harness, None)
    assert submitting.submit() == 2


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "squeue is not installed: run this on a host of the cluster that submits jobs"),
        ("echo 'error: Invalid user' >&2; exit 1", "squeue failed: error: Invalid user"),
        ("sleep 60", "squeue did not answer within 0 s: check that slurmctld runs"),
    ],
    ids=["missing", "failing", "hanging"],
)
def test_an_error_of_slurm_names_the_next_step(harness, cluster, monkeypatch, script, message):
    (cluster / "squeue").unlink()
    if script:
        write_script(cluster / "squeue", script)
        monkeypatch.setattr(slurm, "COMMAND_SECONDS", 0.2 if "sleep" in script else 20)
    monkeypatch.setenv("PATH", f"{cluster}:/bin" if script else str(cluster))
    with pytest.raises(SlurmError, match=message):
        submitter(harness).submit()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "0,1"], "0 stands alone"),
        (["--gpus", "-1"], "0 stands alone"),
        (["--gpus", "one"], "invalid _gpu_counts value"),
        (["--nodes", "0"], "must be at least 1"),
        (["--max-tasks", "0"], "must be between 1 and 1000"),
        (["--name", "a,b"], "at most 40 letters"),
        (["--script", "nowhere.sbatch"], "name a copy of deploy/slurm/frs-worker.sbatch with --script"),
    ],
)
def test_invalid_options_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit):
        slurm.main(arguments)
    assert message in capsys.readouterr().err


def test_a_single_pass_ends_with_the_error(harness, cluster, monkeypatch):
    monkeypatch.setenv("FRS_DATABASE_URL", harness.settings.database_url)
    write_script(cluster / "squeue", "echo broken >&2; exit 1")
    with pytest.raises(SystemExit, match="squeue failed: broken"):
        slurm.main(["--once"])
