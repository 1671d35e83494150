"""Queue positions of many jobs, and the pages of the queue."""

from collections import Counter
from random import Random

from sqlalchemy import select, update

from store.db.tables import Job
from store.jobs import lifecycle
from store.scheduling import queue
from store.scheduling.queue import CPU_ONLY, NO_EXCLUSIONS, position_of_new_job, positions
from store.states import JobStatus


def submit_random_jobs(harness, random, jobs=40):
    """Add jobs with few distinct owners, priorities and creation times; some owners were served, some jobs started."""
    for _ in range(jobs):
        values = {
            "priority": random.choice([-1, 0, 0, 5]),
            "created_at": float(random.randrange(6)),
            "owner": random.choice("abcc"),
            "status": random.choice([JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.PAUSED]),
        }
        change(harness, harness.submit(), **values)
    for owner in "bc":
        harness.do(queue.end_turn, owner)


def change(harness, id, **values):
    harness.do(lambda session: session.execute(update(Job).where(Job.id == id).values(**values)))


def queue_order(harness):
    """Return the ids of all queued jobs, in queue order: owners take turns, `a` first, because it was never served."""
    queued = sorted(
        harness.rows(select(Job).where(Job.status == JobStatus.QUEUED)), key=lambda job: (job.created_at, job.id)
    )
    rounds = Counter()
    places = {}
    for job in queued:
        rounds[job.priority, job.owner] += 1
        places[job.id] = (-job.priority, rounds[job.priority, job.owner], job.owner)
    return sorted(places, key=places.get)


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


def test_a_new_job_is_positioned_in_the_round_after_the_last_one_of_its_owner(harness):
    submit_random_jobs(harness, Random(5))
    for priority in (-1, 0, 1, 5, 6):
        for owner in ("a", "b", "c", "someone new"):
            position = harness.do(position_of_new_job, priority, owner)
            job_id = harness.submit()
            change(harness, job_id, owner=owner, priority=priority)
            assert harness.do(positions, [job_id]) == {job_id: position}
            change(harness, job_id, status=JobStatus.PAUSED)


def test_the_pages_of_the_queue_are_in_order(harness):
    submit_random_jobs(harness, Random(7))
    whole = queue_order(harness)
    assert [job.id for job in harness.do(queue.jobs_in_order, limit=100)] == whole
    after, ids = None, []
    while page := harness.do(queue.jobs_in_order, limit=7, after=after):
        ids += [job.id for job in page]
        after = (page[-1].priority, page[-1].id)
    assert ids == whole
    urgent = harness.do(queue.jobs_in_order, Job.priority > 0, limit=100)
    assert [job.id for job in urgent] == [id for id in whole if harness.job(id).priority > 0]


def test_jobs_of_one_priority_are_claimed_in_the_order_shown(harness):
    submit_random_jobs(harness, Random(9))
    harness.do(lambda session: session.execute(update(Job).values(priority=0)))
    shown = shown_order(harness)
    with harness.database.read() as session:
        assert list(queue.peek(session, CPU_ONLY, NO_EXCLUSIONS, 100).next) == shown
    while lease := harness.do(lifecycle.claim, "worker", 60):
        assert lease.job_id == shown.pop(0)
        assert shown_order(harness) == shown, "the rest keeps its order"
    assert shown == []


def test_the_next_claim_is_the_first_job_shown(harness):
    submit_random_jobs(harness, Random(9))
    while shown := shown_order(harness):
        assert harness.do(lifecycle.claim, "worker", 60).job_id == shown[0]


def shown_order(harness):
    return [job.id for job in harness.do(queue.jobs_in_order, limit=100)]
