"""Uploaded weights: stored unread until a worker has converted them in its sandbox."""

import json
from typing import Annotated, Any

from fastapi import Query
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import exists, select

from api import disk_quota
from api.context import Context, ContextDep
from api.detectors.schemas import Description, Detector, DetectorUpload
from api.http.auth import Caller, Submitter
from api.http.errors import ApiError
from api.upload_body import Upload
from store.artifacts import local_files, storage
from store.artifacts.uploads import is_referenced
from store.db import audit, tables
from store.db.database import insert
from store.db.ids import new_id
from store.requests import worker_requests
from store.states import DetectorStatus, RequestKind

MEDIA_TYPES = ("application/octet-stream",)
_description_adapter: TypeAdapter[Description] = TypeAdapter(Description)


def check_request(context: ContextDep, caller: Submitter, query: Annotated[DetectorUpload, Query()]) -> DetectorUpload:
    """Return the query parameters before the body is read.

    Raises RequestValidationError if they do not describe a detector, ApiError 409 if the name is in use.
    """
    _read_description(query.description)
    is_taken = exists().where(tables.Detector.owner == caller.owner, tables.Detector.name == query.name)
    with context.database.read() as session:
        if session.scalar(select(is_taken)):
            raise _name_taken_error()
    return query


def register(context: Context, caller: Caller, upload_request: DetectorUpload, upload: Upload) -> Detector:
    """Store the weights, request their import from a worker, and return the detector.

    Raises ApiError, 409 if the name is in use, 403 if the owner has too little disk space left.
    """
    detector_id = new_id("det")
    key = f"uploads/{detector_id}.bin"  # one key per detector, because the worker deletes the file after reading it
    values = {
        "id": detector_id,
        "name": upload_request.name,
        "owner": caller.owner,
        "status": DetectorStatus.IMPORTING,
        "description": _read_description(upload_request.description).model_dump(mode="json"),
        "weights_key": key,
        "sha256": upload.sha256,
        "bytes": upload.path.stat().st_size,
        "classes": upload_request.class_names,
    }
    context.artifacts.put(upload.path, key, upload.sha256)
    try:
        return Detector.model_validate(_add(context, caller, values))
    except Exception:  # if the commit has succeeded all the same, the file is referred to and stays
        release(context, key)
        raise


def release(context: Context, key: str | None) -> None:
    """Delete stored weights unless something refers to them. None: the weights are in the folder of models."""
    if key is None:
        return
    with local_files.exclusive_lock(context.settings.uploads_root):
        with context.database.read() as session:
            if is_referenced(session, key):
                return
        storage.delete_files(context.artifacts, key)


def _read_description(text: str) -> Description:
    """Return the description in the query, which is JSON. Raises RequestValidationError with the path of a field."""
    try:
        return _description_adapter.validate_json(text)
    except ValidationError as error:
        errors = [{**item, "loc": ("body", "description", *item["loc"])} for item in error.errors()]
        content = text if errors[0]["type"] == "json_invalid" else json.loads(text)
        raise RequestValidationError(errors, body={"description": content}) from error


def _add(context: Context, caller: Caller, values: dict[str, Any]) -> tables.Detector:
    """Insert the detector and the worker request that imports it. Raises ApiError; see `register`."""
    request = {"detector_id": values["id"], "key": values["weights_key"]}
    request |= {name: values[name] for name in ("sha256", "description", "classes")}
    with context.database.write() as session:
        disk_quota.check_added(session, context.settings, caller, values["bytes"])
        statement = insert(session, tables.Detector).values(values)
        detector = session.scalar(
            statement.on_conflict_do_nothing(index_elements=["owner", "name"]).returning(tables.Detector)
        )
        if detector is None:
            raise _name_taken_error()
        worker_requests.add(session, RequestKind.IMPORT, request, owner=values["owner"])
        audit.record(session, caller.actor, "detector.upload", [detector.id], name=detector.name)
        session.commit()
    return detector


def _name_taken_error() -> ApiError:
    hint = "Choose another name, or delete that detector first."
    return ApiError(409, "name_taken", "A detector of this name exists already.", hint)
