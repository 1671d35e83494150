"""Write docs/errors.md: every error, waiting and end code of the service, with the next step.

Codes with an error class or a hint in the source code are taken from there; the tables below describe the other codes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import frs.errors
import store.errors  # noqa: F401  defines subclasses of FrsError
from api.http.errors import STATUS_OF_CODE
from frs.dataset.issues import HINTS
from frs.dataset.issues import IssueCode as DatasetCode
from frs.errors import FrsError
from store.states import SWEEP_HINTS, WAITING_HINTS, EndReason

PAGE = Path(__file__).with_suffix(".md")
ANSWERS = {
    "already_expired": (422, "`expires_at` of the new key is in the past.", "Set a later time, or omit it."),
    "annotations_unreadable": (
        409,
        "The annotation file of the data set cannot be shown: it is damaged, gone or above 64 MiB.",
        "See GET /datasets/{id}/check.",
    ),
    "artifact_not_found": (404, "The job has no such file, or not yet.", "See GET /jobs/{id}/artifacts."),
    "bad_request": (400, "The request is not valid HTTP.", "See /docs for the paths."),
    "body_missing": (400, "The upload has no body.", "Send the file as the request body."),
    "body_too_large": (413, "The body is larger than 1 MiB.", "Send a smaller body."),
    "busy": (503, "No database connection was free, or archives are being unpacked.", "Retry after `Retry-After`."),
    "checkpoint_not_found": (404, "The checkpoint does not exist or was deleted.", "See GET /jobs/{id}/checkpoints."),
    "conflict": (409, "An object that the request refers to was changed concurrently.", "Read it again, then retry."),
    "database_unavailable": (503, "The database does not answer.", "Retry after 2 seconds; see GET /health/ready."),
    "dataset_in_use": (409, "Jobs refer to the data set.", "Delete these jobs first; see GET /jobs?dataset=."),
    "dataset_not_ready": (422, "The data set is still being checked.", "Poll GET /datasets/{id}."),
    "delivery_not_found": (
        404,
        "The webhook has no such delivery, or it was removed.",
        "See GET /webhooks/{id}/deliveries.",
    ),
    "dependency_failed": (
        422,
        "The job that was to train the teacher ended without a student.",
        "Name another job, or post that job again.",
    ),
    "detector_in_use": (409, "Jobs that have not ended refer to the detector.", "Wait for these jobs, or cancel them."),
    "detector_not_ready": (422, "The uploaded weights are not imported yet.", "Poll GET /detectors/{id}."),
    "detector_refused": (422, "The uploaded weights were refused.", "See `error.hint` of the detector."),
    "detector_not_found": (404, "No detector has this id or name; 422 in a spec.", "See GET /detectors."),
    "files_not_found": (422, "A path does not exist in the data set folder.", "Add the file, or correct the path."),
    "disk_quota_exceeded": (
        403,
        "The stored files of the owner exceed its disk space.",
        "See `frs usage`; delete jobs, data sets or detectors.",
    ),
    "hash_differs": (422, "The SHA-256 of the upload differs from `X-Content-SHA256`.", "Send the file again."),
    "host_not_allowed": (400, "The host name is not in `FRS_ALLOWED_HOSTS`.", "Use an allowed host name."),
    "image_not_found": (404, "The split has no file for this image.", "See GET /datasets/{id}/images."),
    "image_unreadable": (
        422,
        "The image cannot be read.",
        "Send a JPEG, PNG, BMP or WebP image of at most 50 million pixels.",
    ),
    "internal_error": (500, "Internal error of the service.", "Retry; report it with the `request_id`."),
    "invalid_cursor": (422, "The cursor does not belong to this list.", "Pass `next_cursor` unchanged."),
    "invalid_json": (400, "The body is not strict JSON.", "Remove NaN, infinities, lone surrogates and U+0000."),
    "invalid_range": (
        416,
        "The range is outside the file; 400 if it is malformed.",
        "Request `bytes=FIRST-LAST` inside the file.",
    ),
    "invalid_request": (
        422,
        "Fields are invalid; `errors` lists each field and the reason.",
        "See /docs for the valid values.",
    ),
    "key_missing": (401, "The request has no API key.", "Send `Authorization: Bearer KEY`."),
    "key_not_found": (404, "The API key does not exist.", "See GET /api-keys."),
    "key_not_valid": (409, "The API key to rotate has expired, was revoked, or is a signed-in user.", "Create a key."),
    "method_not_allowed": (
        405,
        "The path does not support this method.",
        "The `Allow` header lists the supported methods.",
    ),
    "name_taken": (409, "The name is already in use.", "Choose another name, or use the existing object."),
    "not_comparable": (422, "The job has no such teacher or baseline.", "Leave `compare` out."),
    "not_exported": (409, "There is no exported file of this detector yet.", "Export it: POST /jobs/{id}/exports."),
    "oidc_provider_unavailable": (
        503,
        "The sign-in provider does not answer, so that its tokens cannot be checked.",
        "Try again, or use an API key; operators: check `FRS_OIDC_ISSUER`.",
    ),
    "owner_missing": (
        403,
        "The token's claim `FRS_OIDC_OWNER_CLAIM` is no name of an owner.",
        "Operators: choose another claim.",
    ),
    "project_not_allowed": (403, "The user is not a member of the project.", "Leave out the header `FRS-Project`."),
    "not_found": (404, "The path does not exist.", "See /docs for the paths."),
    "nothing_to_compare": (422, "The same job was named twice.", "Name at least two different jobs."),
    "plan_not_found": (404, "The plan does not exist.", "Create one with POST /jobs/plan?probe=true."),
    "sweep_action_not_allowed": (
        409,
        "The sweep has ended, or is active and cannot be deleted.",
        "Stop a sweep before it is deleted; post a new one after it has succeeded.",
    ),
    "sweep_not_found": (404, "The sweep does not exist.", "See GET /sweeps."),
    "prediction_failed": (504, "The exported file gave no answer in time.", "Send a smaller image, or retry."),
    "prediction_unavailable": (
        501,
        "The API has no onnxruntime.",
        "Install the extra `frs-distill[predict]` beside the API.",
    ),
    "predictor_busy": (503, "Too many predictions are waiting.", "Retry after 2 seconds."),
    "quota_exceeded": (
        429,
        "The owner has as many active jobs as the key allows.",
        "Wait for some of them, or cancel some.",
    ),
    "rate_limited": (429, "The key or the address exceeded its rate limit.", "Wait for the time in `Retry-After`."),
    "recipe_not_found": (404, "The recipe does not exist.", "See GET /recipes."),
    "scope_missing": (
        403,
        "The key does not have the required scope; priorities above 0 require `priority`.",
        "Use a key with that scope; for a job, also a priority of at most 0.",
    ),
    "spec_unreadable": (
        409,
        "The job was stored by another version, and this one cannot read its spec; 422 in a spec that names it.",
        "Update FRS, or submit the job again.",
    ),
    "storage_unavailable": (503, "The artifact storage does not answer.", "Retry after 2 seconds."),
    "student_not_ready": (422, "The job has no student.", "Name a job that trained a student and succeeded."),
    "too_many_probes": (
        429,
        "Plans of the owner are still waiting for a probe.",
        "Wait for them, or plan without `probe`.",
    ),
    "too_many_streams": (429, "The owner has as many open streams as allowed.", "Close some."),
    "token_not_valid": (401, "The sign-in provider's token has expired or is not valid here.", "Sign in again."),
    "too_many_webhooks": (409, "The owner has as many webhooks as allowed.", "Delete one: DELETE /webhooks/{id}."),
    "unknown_key": (401, "The API key is unknown, has expired or was revoked.", "Use a valid key."),
    "unsupported_media_type": (
        415,
        "The request's content type is not JSON, or its body is compressed.",
        "Send `Content-Type: application/json`, and the body without `Content-Encoding`.",
    ),
    "upload_broken_off": (400, "The upload ended before the file was complete.", "Send the file again."),
    "upload_stalled": (408, "The upload stalled: no data arrived for too long.", "Send the file again."),
    "upload_too_large": (413, "The file is larger than the upload limit.", "Remove files that are not needed."),
    "waiting_for_detector": (
        409,
        "The probe needs a detector that is not trained yet.",
        "Wait for the job that trains it.",
    ),
    "webhook_address_not_allowed": (
        422,
        "The address is private, local or reserved, or of a mail domain that the operator does not allow.",
        "Use a public address, or have an operator set `FRS_WEBHOOK_ALLOWED_NETWORKS` or `FRS_MAIL_DOMAINS`.",
    ),
    "webhook_not_found": (404, "The webhook does not exist.", "See GET /webhooks."),
}
ENDS = {
    EndReason.COMPLETED: ("The job completed its schedule.", "See GET /jobs/{id}/report."),
    EndReason.STOPPED_EARLY: ("A user stopped the job; its student was saved.", "See GET /jobs/{id}/report."),
    EndReason.TIME_LIMIT: ("`resources.max_minutes` elapsed; the student was saved.", "Raise `resources.max_minutes`."),
    EndReason.NO_IMPROVEMENT: (
        "`schedule.patience` evaluations brought no new highest mAP; the student was saved.",
        "See GET /jobs/{id}/report; `frs pull --best` fetches the best student.",
    ),
    EndReason.CANCELLED_BY_USER: (
        "A user cancelled the job.",
        "`resume` continues it, `retry` starts it from scratch.",
    ),
    EndReason.DIVERGED: ("The loss became NaN or infinite.", frs.errors.Diverged.hint_by_default),
    EndReason.OUT_OF_MEMORY: ("GPU or host memory ran out.", frs.errors.OutOfMemory.hint_by_default),
    EndReason.INVALID_SPEC: ("The spec cannot be run.", "See `error.message` of the job for the field; correct it."),
    EndReason.DEVICE_UNAVAILABLE: (
        "The worker's devices cannot run the job as requested.",
        "Change `resources.devices` or `schedule.precision`.",
    ),
    EndReason.BAD_DATASET: ("The data set cannot be used for training.", "Correct it; see GET /datasets/{id}/check."),
    EndReason.CLASS_MISMATCH: (
        "A detector or a split has other classes than the data set.",
        "See `error.message` of the job for the classes.",
    ),
    EndReason.BAD_WEIGHTS: ("Weights are missing or cannot be used.", "See `error.hint` of the job."),
    EndReason.BAD_TEACHER: ("The teacher changed during training.", "Report it with the log of the job."),
    EndReason.TEACHER_REFUSED: ("The teacher is not suitable for this student.", "See `error.hint` of the job."),
    EndReason.UNSUPPORTED_DETECTOR: (
        "A detector of a base config cannot be built, trained or distilled.",
        "See `error.message` of the job for the cause.",
    ),
    EndReason.EXPORT_UNSUPPORTED: (
        "The student cannot be exported.",
        "See `error.message` of the job for the cause, docs/export.md for what can be exported.",
    ),
    EndReason.EXPORT_FAILED: ("An exported file does not run.", "See the log of the job, and report it."),
    EndReason.RUNS_NOT_COMPARABLE: (
        "The runs of the comparison cannot be compared.",
        "See `error.message` of the job for the cause.",
    ),
    EndReason.DEPENDENCY_FAILED: (
        "A job that this job depends on failed.",
        "`retry` that job; this one then runs automatically.",
    ),
    EndReason.HUNG: ("The trainer sent no events for too long.", "See GET /jobs/{id}/logs for its stack trace."),
    EndReason.POISON: ("Trainers crashed repeatedly on this job.", "See GET /jobs/{id}/logs, then `retry`."),
    EndReason.INTERNAL_ERROR: ("An unexpected error occurred.", "See GET /jobs/{id}/logs and report it."),
}
DATASET = {
    "annotation_id_duplicate": "Two annotations have the same id.",
    "annotation_invalid": "An annotation lacks a field required by COCO.",
    "box_empty": "A box has no area.",
    "box_invalid": "A box is not a list of four finite numbers.",
    "box_outside": "A box lies outside its image.",
    "boxes_missing": "A split has no boxes.",
    "category_duplicate": "Two categories have the same id or name.",
    "category_unknown": "A box has a category that is not listed.",
    "image_id_duplicate": "Two images have the same id.",
    "image_invalid": "An image entry lacks a field required by COCO.",
    "image_listed_twice": "Two entries name the same file.",
    "image_missing": "The image file does not exist.",
    "image_outside_folder": "The file name points outside the image folder.",
    "image_size_differs": "The image size differs from its entry.",
    "image_too_large": "The image has more pixels than the limit.",
    "image_unknown": "A box refers to an image that is not listed.",
    "image_unreadable": "The file is not an image or is damaged.",
}
INTRODUCTION = """# Codes

Every response with a status of 400 or higher is `application/problem+json` with a `code` from this list and a `hint`.
The `error` of a failed job or sweep and the `status_reason` of a waiting job also have a `code` and a `hint`. Codes are
stable and meant for programs; messages may change. `errors[].code` inside `invalid_request` is pydantic's error type of
the field.

Generated by `make docs`.
"""


def page() -> str:
    sections = [
        ("HTTP errors", ("code", "status", "meaning", "next step"), answers()),
        ("Errors of specs, weights and training", ("code", "status", "end reason of the job", "next step"), errors()),
        ("Why a job waits", ("code", "next step"), [(code, hint) for code, hint in WAITING_HINTS.items()]),
        ("Why a sweep failed", ("code", "next step"), [(code, hint) for code, hint in SWEEP_HINTS.items()]),
        ("Why a job ended", ("code", "meaning", "next step"), _rows(ENDS)),
        (
            "Data set issues",
            ("code", "meaning", "next step"),
            [(code, DATASET[code], hint) for code, hint in HINTS.items()],
        ),
    ]
    return INTRODUCTION + "".join(_section(*section) for section in sections)


def answers() -> list[tuple[str, ...]]:
    return [(code, str(status), meaning, hint) for code, (status, meaning, hint) in sorted(ANSWERS.items())]


def errors() -> list[tuple[str, ...]]:
    """Return the codes of the error classes. As HTTP responses they are 422 by default; most occur only in training."""
    classes = {error.code: error for error in subclasses(FrsError)}
    return [
        (code, str(STATUS_OF_CODE.get(code, 422)), error.end_reason, error.hint_by_default)
        for code, error in sorted(classes.items())
        if code not in ANSWERS
    ]


def dataset_codes() -> tuple[str, ...]:
    return get_args(DatasetCode)


def _rows(table: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(code, *cells) for code, cells in table.items()]


def subclasses(kind: type[FrsError]) -> Iterator[type[FrsError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([f"`{code}`", *cells] for code, *cells in rows)]
    return f"\n## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
