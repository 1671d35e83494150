"""Weights that come from outside: kept as they are until a worker has read them in its jail."""

from typing import Annotated, Any

from fastapi import Query
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import exists, select

from api.context import Context, ContextDep
from api.detectors.schemas import Description, Detector, DetectorUpload
from api.http import files
from api.http.auth import Caller, Submitter
from api.http.errors import ApiError
from api.upload_body import Upload
from store.artifacts import local_files
from store.artifacts.uploads import is_referenced
from store.db import tables
from store.db.database import insert
from store.db.ids import new_id
from store.requests import worker_requests
from store.states import DetectorStatus, RequestKind

MEDIA_TYPES = ("application/octet-stream",)
_description: TypeAdapter[Description] = TypeAdapter(Description)


def wanted(here: ContextDep, caller: Submitter, query: Annotated[DetectorUpload, Query()]) -> DetectorUpload:
    """Raises RequestValidationError for what describes no detector, ApiError 409 where the name is taken."""
    _described(query)
    taken = exists().where(tables.Detector.owner == caller.owner, tables.Detector.name == query.name)
    with here.database.read() as session:
        if session.scalar(select(taken)):
            raise _name_taken()
    return query


def register(context: Context, caller: Caller, wanted: DetectorUpload, upload: Upload) -> Detector:
    """Raises ApiError 409 where the name is taken."""
    detector_id = new_id("det")
    key = f"uploads/{detector_id}.bin"  # its own, for a worker deletes it when it has read it
    values = {
        "id": detector_id,
        "name": wanted.name,
        "owner": caller.owner,
        "status": DetectorStatus.IMPORTING,
        "description": _described(wanted).model_dump(mode="json"),
        "weights_key": key,
        "sha256": upload.sha256,
        "classes": wanted.class_names,
    }
    context.artifacts.put(upload.path, key, upload.sha256)
    detector = _add(context, values)
    if detector is None:
        release(context, key)
        raise _name_taken()
    return Detector.model_validate(detector)


def release(context: Context, key: str | None) -> None:
    """Removes weights that nothing refers to any more. None: they lie in the folder of models."""
    if key is None:
        return
    with local_files.exclusive_lock(context.settings.uploads_root):
        with context.database.read() as session:
            if is_referenced(session, key):
                return
        files.delete_files(context.artifacts, key)


def _described(wanted: DetectorUpload) -> Description:
    backbone = {"depth": wanted.depth, "width": wanted.width, "norm": wanted.norm}
    fields: dict[str, Any] = {
        "config": wanted.config,
        "architecture": wanted.architecture,
        "backbone": {name: value for name, value in backbone.items() if value is not None} or None,
        "neck_channels": wanted.neck_channels,
        "stacked_convs": wanted.stacked_convs,
    }
    try:
        return _description.validate_python({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        faults = [{**fault, "loc": ("query", fault["loc"][-1])} for fault in error.errors()]
        raise RequestValidationError(faults) from error


def _add(context: Context, values: dict[str, Any]) -> tables.Detector | None:
    """With the worker_request that makes it ready. None where the name was taken meanwhile."""
    request = {"detector_id": values["id"], "key": values["weights_key"], "sha256": values["sha256"]}
    with context.database.write() as session:
        statement = insert(session, tables.Detector).values(values)
        detector = session.scalar(
            statement.on_conflict_do_nothing(index_elements=["owner", "name"]).returning(tables.Detector)
        )
        if detector is not None:
            worker_requests.add(session, RequestKind.IMPORT, request, owner=values["owner"])
        session.commit()
    return detector


def _name_taken() -> ApiError:
    hint = "Choose another name, or DELETE /detectors/{name} first."
    return ApiError(409, "name_taken", "There is a detector of this name.", hint)
