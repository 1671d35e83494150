from sqlalchemy import update

from frs.spec import JobSpec
from store import jobs
from store.line import Room
from store.tables import Job

TWO_FREE = Room(gpus=4, free=2)


def submit(house, devices):
    document = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
    spec = JobSpec.model_validate(document | {"resources": {"devices": devices}})
    return house.do(jobs.add, spec, dataset_id="ds_shapes").id


def claim(house):
    lease = house.do(jobs.claim, "worker", 60, room=TWO_FREE)
    return lease.job_id if lease else None


def grow_old(house, job_id):
    house.do(lambda session: session.execute(update(Job).where(Job.id == job_id).values(created_at=1.0)))


def test_smaller_jobs_overtake_a_large_one_for_a_while(house):
    submit(house, devices=4)
    small = submit(house, devices=1)
    assert claim(house) == small


def test_nobody_takes_gpus_an_old_large_job_waits_for(house):
    grow_old(house, submit(house, devices=4))
    submit(house, devices=1)
    assert claim(house) is None


def test_a_job_without_gpus_need_not_wait_for_a_large_one(house):
    grow_old(house, submit(house, devices=4))
    without = submit(house, devices=0)
    assert claim(house) == without
