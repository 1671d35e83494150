"""Writes docs/errors.md: every code that an answer, a waiting or an ended job can carry, and what to do about it.

What the code says of itself is taken from there; the sentences below are for those that are made where they occur.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import frs.errors
import store.errors  # noqa: F401  for its subclasses
from api.http.errors import STATUS_OF_CODE
from frs.dataset.issues import IssueCode as DatasetCode
from frs.errors import FrsError
from store.states import WAITING_HINTS, EndReason

PAGE = Path(__file__).with_suffix(".md")
ANSWERS = {
    "already_expired": (422, "A new key's `expires_at` is past.", "Name a later time, or leave it out."),
    "artifact_not_found": (404, "The job has no such file, or not yet.", "See GET /jobs/{id}/artifacts."),
    "bad_request": (400, "The request is not one that HTTP allows.", "See /docs for the paths."),
    "body_missing": (400, "An upload without a body.", "Send the file as the request's body."),
    "body_too_large": (413, "The body has more than 1 MiB.", "Send less at once."),
    "busy": (503, "Too many requests at once: no connection was free.", "Try again in 2 seconds."),
    "checkpoint_not_found": (404, "No such checkpoint, or it was deleted.", "See GET /jobs/{id}/checkpoints."),
    "conflict": (409, "What the request refers to has changed meanwhile.", "Look at it again, then try again."),
    "database_unavailable": (503, "The database does not answer.", "Try again in 2 seconds; see GET /health/ready."),
    "dataset_in_use": (409, "Jobs refer to the data set.", "Delete these jobs first; see GET /jobs?dataset=."),
    "dataset_not_ready": (422, "The data set is still being checked.", "Poll GET /datasets/{id}."),
    "dependency_failed": (422, "The job that was to train it has ended without.", "Name another, or post it again."),
    "detector_in_use": (409, "Jobs that have not ended refer to the detector.", "Wait for them, or cancel them."),
    "detector_not_ready": (422, "The uploaded weights have not been read yet.", "Poll GET /detectors/{id}."),
    "detector_refused": (422, "The uploaded weights were refused.", "See `error.hint` of the detector."),
    "detector_not_found": (404, "No detector of this id or name; 422 in a spec.", "See GET /detectors."),
    "files_not_found": (422, "A path names nothing below the folder of data sets.", "Put it there, or correct it."),
    "hash_differs": (422, "The upload does not hash to what was announced.", "Send it again."),
    "host_not_allowed": (400, "The host name is not one of `FRS_ALLOWED_HOSTS`.", "Use a name that is."),
    "internal_error": (500, "A fault of the service.", "Try again; report it with the `request_id`."),
    "invalid_cursor": (422, "Not a cursor of this list.", "Use `next_cursor` as it came."),
    "invalid_json": (400, "The body is not strict JSON.", "No NaN, infinities, lone surrogates, U+0000."),
    "invalid_range": (
        416,
        "The file has no such range; 400 where it is none.",
        "Ask for `bytes=FIRST-LAST` inside it.",
    ),
    "invalid_request": (422, "Fields do not fit; `errors` says which and why.", "See /docs for what they take."),
    "key_missing": (401, "No key was sent.", "Send `Authorization: Bearer KEY`."),
    "key_not_found": (404, "No such API key.", "See GET /api-keys."),
    "method_not_allowed": (405, "The path does not take this method.", "The header `Allow` says what it takes."),
    "name_taken": (409, "There is one of this name.", "Choose another name, or use the one there is."),
    "not_found": (404, "There is nothing under this path.", "See /docs for the paths."),
    "nothing_to_compare": (422, "One job was named twice.", "Name at least two."),
    "plan_not_found": (404, "No such plan.", "Make one with POST /jobs/plan?probe=true."),
    "quota_exceeded": (429, "The owner has as many active jobs as the key allows.", "Wait for some, or cancel some."),
    "rate_limited": (429, "The key or the address comes too often.", "Wait as long as `Retry-After` says."),
    "recipe_not_found": (404, "No such recipe.", "See GET /recipes."),
    "scope_missing": (403, "The key has not the scope that this needs.", "Use a key that has it."),
    "storage_unavailable": (503, "The store of artifacts does not answer.", "Try again in 2 seconds."),
    "student_not_ready": (422, "The job has not left a student.", "Name one that trained one and has succeeded."),
    "too_many_probes": (429, "Plans of the owner still wait for a probe.", "Wait for these, or plan without `probe`."),
    "too_many_streams": (429, "The owner follows as many jobs as is allowed.", "Close some."),
    "unknown_key": (401, "The key is unknown, has expired or was revoked.", "Use a key that is valid."),
    "unsupported_media_type": (415, "The body is not said to be JSON.", "Send `Content-Type: application/json`."),
    "upload_broken_off": (400, "The upload ended before its end.", "Send the file again."),
    "upload_stalled": (408, "Nothing of the upload came for too long.", "Send the file again."),
    "upload_too_large": (413, "The file is larger than is taken.", "Leave out what is not needed."),
    "waiting_for_teacher": (409, "A probe needs a detector that is not trained yet.", "Wait for that job."),
}
ENDS = {
    EndReason.COMPLETED: ("It did all that was asked for.", "See GET /jobs/{id}/report."),
    EndReason.STOPPED_EARLY: ("Somebody stopped it; it kept what it had learned.", "See GET /jobs/{id}/report."),
    EndReason.TIME_LIMIT: ("`resources.max_minutes` were over; it kept what it had learned.", "Allow more minutes."),
    EndReason.CANCELLED_BY_USER: ("Somebody cancelled it.", "`resume` goes on, `retry` starts again."),
    EndReason.DIVERGED: ("The loss was no number any more.", frs.errors.Diverged.hint_by_default),
    EndReason.OUT_OF_MEMORY: ("Memory, of the GPU or of the host, ran out.", frs.errors.OutOfMemory.hint_by_default),
    EndReason.BAD_DATASET: ("The data set cannot be trained on.", "Correct it; see GET /datasets/{id}/check."),
    EndReason.BAD_TEACHER: ("The teacher's weights cannot be used.", "See `error.hint` of the job."),
    EndReason.TEACHER_REFUSED: ("This teacher cannot teach this student.", "See `error.hint` of the job."),
    EndReason.DEPENDENCY_FAILED: ("A job it needs has failed.", "`retry` that one: this one follows by itself."),
    EndReason.HUNG: ("The trainer said nothing for too long.", "See GET /jobs/{id}/logs for its stack."),
    EndReason.POISON: ("Trainers died over it again and again.", "See GET /jobs/{id}/logs, then `retry`."),
    EndReason.INTERNAL_ERROR: ("Something nobody foresaw.", "See GET /jobs/{id}/logs and report it."),
}
DATASET = {
    "annotation_id_duplicate": ("Two annotations have one id.", "Number them anew."),
    "annotation_invalid": ("An annotation lacks what COCO wants.", "Correct or drop it."),
    "box_empty": ("A box without area.", "Correct or drop it."),
    "box_invalid": ("A box is not four finite numbers.", "Correct or drop it."),
    "box_outside": ("A box lies outside its image.", "Correct or drop it."),
    "boxes_missing": ("A split has no boxes at all.", "Use the annotation file that has them."),
    "category_duplicate": ("Two categories have one id or name.", "Rename or merge them."),
    "category_unknown": ("A box is of a category that is not listed.", "List the category, or drop the box."),
    "image_id_duplicate": ("Two images have one id.", "Number them anew."),
    "image_invalid": ("An image's entry lacks what COCO wants.", "Correct or drop it."),
    "image_listed_twice": ("Two entries name one file.", "Drop one of them."),
    "image_missing": ("The file is not there.", "Put it there, or drop its entry."),
    "image_outside_folder": ("The name leads out of the folder of images.", "Put the file inside it."),
    "image_size_differs": ("The file has not the size that its entry says.", "Correct the entry."),
    "image_too_large": ("It has more pixels than are read.", "Scale it down."),
    "image_unknown": ("A box is in an image that is not listed.", "List the image, or drop the box."),
    "image_unreadable": ("The file is no picture, or a broken one.", "Replace it, or drop its entry."),
}
INTRODUCTION = """# Codes

Every answer from 400 on is `application/problem+json` with a `code` from this list and a `hint`; so is the `error` of a
job that failed, and the `status_reason` of one that waits. Codes are for programs and stay; the words around them may
change. `errors[].code` inside `invalid_request` is pydantic's name for what is wrong with the field.

Written by `python docs/errors.py`.
"""


def page() -> str:
    sections = [
        ("Answers", ("code", "status", "what happened", "next step"), answers()),
        ("Errors of specs, weights and training", ("code", "status", "the job ends as", "next step"), errors()),
        ("Why a job waits", ("code", "next step"), [(code, hint) for code, hint in WAITING_HINTS.items()]),
        ("Why a job has ended", ("code", "what happened", "next step"), _rows(ENDS)),
        ("What is wrong with a data set", ("code", "what is wrong", "next step"), _rows(DATASET)),
    ]
    return INTRODUCTION + "".join(_section(*section) for section in sections)


def answers() -> list[tuple[str, ...]]:
    return [(code, str(status), what, hint) for code, (status, what, hint) in sorted(ANSWERS.items())]


def errors() -> list[tuple[str, ...]]:
    """As answers 422 unless said otherwise; most occur in training alone."""
    known = {error.code: error for error in _subclasses(FrsError)}
    return [
        (code, str(STATUS_OF_CODE.get(code, 422)), error.end_reason, error.hint_by_default)
        for code, error in sorted(known.items())
        if code not in ANSWERS
    ]


def dataset_codes() -> tuple[str, ...]:
    return get_args(DatasetCode)


def _rows(told: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(code, *words) for code, words in told.items()]


def _subclasses(kind: type[FrsError]) -> Iterator[type[FrsError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([f"`{code}`", *words] for code, *words in rows)]
    return f"\n## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
