"""Response models of exports. The request body of `POST /jobs/{id}/exports` is `frs.spec.ExportSettings`."""

from api.http.schemas import AsStored, ResponseModel, ResponseTime
from api.jobs.schemas import JobError
from frs.evaluation.export_report import ExportReport
from frs.spec import ExportSettings
from store.states import JobStatus


class Export(ResponseModel):
    """An export of a job's student. It is a job of kind `export`, whose artifacts are the files."""

    job_id: str
    """Id of the export's own job: GET /jobs/{id}/artifacts has the files."""
    status: JobStatus
    settings: AsStored[ExportSettings]
    passed: bool | None
    """Whether every file passed its comparison with the student; null unless it has succeeded."""
    report: AsStored[ExportReport] | None
    """How the files compare with the student; null unless it has succeeded."""
    error: JobError | None
    created_at: ResponseTime
    finished_at: ResponseTime | None
