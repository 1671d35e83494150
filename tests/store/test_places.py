"""Queue positions of many jobs, and the pages of the queue."""

from random import Random

from sqlalchemy import select, update

from store.db.tables import Job
from store.scheduling import queue
from store.scheduling.queue import position_of_new_job, positions
from store.states import JobStatus


def submit_random_jobs(harness, random, jobs=40):
    """Add jobs with few distinct priorities and creation times; some of them are not queued."""
    for _ in range(jobs):
        id = harness.submit()
        values = {"priority": random.choice([-1, 0, 0, 5]), "created_at": float(random.randrange(6))}
        status = random.choice([JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.PAUSED])
        harness.do(
            lambda session, id=id, v=values, s=status: session.execute(
                update(Job).where(Job.id == id).values(status=s, **v)
            )
        )


def queue_order(harness):
    """Return the ids of all queued jobs, in queue order."""
    queued = harness.rows(select(Job).where(Job.status == JobStatus.QUEUED))
    return [job.id for job in sorted(queued, key=lambda job: (-job.priority, job.created_at, job.id))]


def test_positions_are_those_in_the_whole_queue(harness):
    random = Random(4)
    submit_random_jobs(harness, random)
    expected = {id: number for number, id in enumerate(queue_order(harness), 1)}
    assert harness.do(positions, list(expected)) == expected
    for size in (1, 2, 7):
        sample = random.sample(list(expected), size)
        assert harness.do(positions, sample) == {id: expected[id] for id in sample}


def test_jobs_that_are_not_queued_have_no_position(harness):
    lease = harness.start()
    assert harness.do(positions, [lease.job_id, "job_nobody"]) == {}
    assert harness.do(positions, []) == {}


def test_a_new_job_is_positioned_behind_all_jobs_of_the_same_or_a_higher_priority(harness):
    ids = [harness.submit() for _ in range(3)]
    harness.do(lambda session: session.execute(update(Job).where(Job.id == ids[0]).values(priority=2)))
    assert [harness.do(position_of_new_job, priority) for priority in (-1, 0, 1, 2, 3)] == [4, 4, 2, 2, 1]
    assert harness.do(queue.queue_lengths) == {2: 1, 0: 2}


def test_the_pages_of_the_queue_are_in_order(harness):
    submit_random_jobs(harness, Random(7))
    whole = queue_order(harness)
    assert [job.id for job in harness.do(queue.jobs_in_order, limit=100)] == whole
    after, ids = None, []
    while page := harness.do(queue.jobs_in_order, limit=7, after=after):
        ids += [job.id for job in page]
        after = (page[-1].priority, page[-1].created_at, page[-1].id)
    assert ids == whole
    urgent = harness.do(queue.jobs_in_order, Job.priority > 0, limit=100)
    assert [job.id for job in urgent] == [id for id in whole if harness.job(id).priority > 0]
