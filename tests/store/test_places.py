"""Where in the line a job stands, told for many at once."""

from random import Random

from sqlalchemy import select, update

from store.db.tables import Job
from store.scheduling import queue
from store.scheduling.queue import position_of_new_job, positions
from store.states import JobStatus


def scattered(harness, numbers, jobs=40):
    """Jobs of few priorities and of times that many share; some of them have left the queue."""
    for _ in range(jobs):
        id = harness.submit()
        values = {"priority": numbers.choice([-1, 0, 0, 5]), "created_at": float(numbers.randrange(6))}
        status = numbers.choice([JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.PAUSED])
        harness.do(
            lambda session, id=id, v=values, s=status: session.execute(
                update(Job).where(Job.id == id).values(status=s, **v)
            )
        )


def in_line(harness):
    queued = harness.rows(select(Job).where(Job.status == JobStatus.QUEUED))
    return [job.id for job in sorted(queued, key=lambda job: (-job.priority, job.created_at, job.id))]


def test_places_are_those_of_the_whole_line_put_in_order(harness):
    numbers = Random(4)
    scattered(harness, numbers)
    everybody = {id: number for number, id in enumerate(in_line(harness), 1)}
    assert harness.do(positions, list(everybody)) == everybody
    for size in (1, 2, 7):
        some = numbers.sample(list(everybody), size)
        assert harness.do(positions, some) == {id: everybody[id] for id in some}


def test_what_is_not_queued_has_no_place(harness):
    lease = harness.start()
    assert harness.do(positions, [lease.job_id, "job_nobody"]) == {}
    assert harness.do(positions, []) == {}


def test_a_new_job_would_stand_behind_all_that_are_as_urgent(harness):
    ids = [harness.submit() for _ in range(3)]
    harness.do(lambda session: session.execute(update(Job).where(Job.id == ids[0]).values(priority=2)))
    assert [harness.do(position_of_new_job, priority) for priority in (-1, 0, 1, 2, 3)] == [4, 4, 2, 2, 1]
    assert harness.do(queue.queue_lengths) == {2: 1, 0: 2}


def test_the_line_comes_in_order_from_any_place_on(harness):
    numbers = Random(7)
    scattered(harness, numbers)
    whole = in_line(harness)
    assert [job.id for job in harness.do(queue.in_order, limit=100)] == whole
    after, found = None, []
    while page := harness.do(queue.in_order, limit=7, after=after):
        found += [job.id for job in page]
        after = (page[-1].priority, page[-1].created_at, page[-1].id)
    assert found == whole
    urgent = harness.do(queue.in_order, Job.priority > 0, limit=100)
    assert [job.id for job in urgent] == [id for id in whole if harness.job(id).priority > 0]
