"""Retention decides on each run group when it removes it, not when it lists the groups."""

import pytest
from sqlalchemy import select

from frs.events import Metrics
from store.artifacts.storage import open_artifacts
from store.db import audit
from store.db.tables import Metric
from store.jobs import actions, lifecycle, recording
from store.jobs.retention import Content, RetentionRules, clean_group, expired_groups
from store.settings import Settings
from store.states import EndReason, JobStatus

ALL = RetentionRules(0.0)


@pytest.mark.parametrize("contents", [[Content.METRICS], [Content.JOBS]])
@pytest.mark.parametrize(
    "change",
    [
        lambda harness, job_id: harness.do(actions.resume, job_id),
        lambda harness, job_id: harness.do(actions.change, job_id, tags=["keep"]),
        lambda harness, job_id: harness.claim(harness.do(actions.resume, job_id).id),
    ],
    ids=["resumed", "tagged", "running"],
)
def test_a_job_that_the_rules_keep_meanwhile_stays_as_it_is(harness, tmp_path, change, contents):
    lease = harness.start()
    harness.do(recording.record, lease, [Metrics(step=1, epoch=1, values={"train/loss": 1.0})])
    harness.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED)
    with harness.database.read() as session:
        [listed] = expired_groups(session, ALL, contents)
    change(harness, lease.job_id)
    artifacts = open_artifacts(Settings(data=tmp_path / "data"))
    assert clean_group(harness.database, artifacts, listed, contents, ALL, audit.RETENTION) is None
    assert [row.job_id for row in harness.rows(select(Metric))] == [lease.job_id]
