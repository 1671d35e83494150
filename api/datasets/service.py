"""Register, list, read and delete data sets."""

from pathlib import Path

from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.context import Context
from api.datasets import checks
from api.datasets.checks import DatasetCheckResult
from api.datasets.schemas import Dataset, DatasetCheck, DatasetCreate, SplitCounts, SplitFiles, SplitName
from api.http import files
from api.http.auth import Caller
from api.http.errors import ApiError
from api.http.pagination import newest_first
from api.http.schemas import Page
from frs.errors import DatasetNotFound
from store.db import audit, ids, queries, tables
from store.db.database import Database, insert

_MAX_ISSUES = 20


def resolve_splits(context: Context, request: DatasetCreate) -> tuple[SplitFiles, SplitFiles]:
    """Return the files of the training and the validation split. Raises InvalidField if files are missing."""
    root = context.settings.datasets_root
    return _resolve_files(request, "train", root), _resolve_files(request, "val", root)


def register(context: Context, caller: Caller, name: str, train: SplitFiles, val: SplitFiles) -> Dataset:
    """Register a data set, check it or start its check, and return it. Raises ApiError 409 if the name is in use."""
    dataset = _add(context.database, caller, name, train, val)
    checks.check_new(context, dataset)
    return get_dataset(context.database, caller, dataset.id)


def list_datasets(
    database: Database, caller: Caller, limit: int, cursor: str | None, *, own: bool = False
) -> Page[Dataset]:
    """Return a page of data sets, newest first. Raises InvalidField for an invalid cursor."""
    with database.read() as session:
        query = select(tables.Dataset).where(caller.visible(tables.Dataset, own=own))
        rows, next_cursor = newest_first(session, query, tables.Dataset, limit, cursor)
    return Page(data=[_to_response(row) for row in rows], next_cursor=next_cursor)


def get_dataset(database: Database, caller: Caller, id_or_name: str) -> Dataset:
    """Return a data set. Raises DatasetNotFound."""
    with database.read() as session:
        return _to_response(get_row(session, caller, id_or_name))


def get_check(database: Database, caller: Caller, id_or_name: str) -> DatasetCheck:
    """Return the result of a data set's check. Raises DatasetNotFound."""
    with database.read() as session:
        dataset = get_row(session, caller, id_or_name)
    result = DatasetCheckResult.model_validate(dataset.check_result or {})
    return DatasetCheck(
        id=dataset.id,
        status=dataset.status,
        train=result.train,
        val=result.val,
        issues=result.issues,
        warnings=result.warnings,
    )


def delete(database: Database, caller: Caller, id_or_name: str) -> str | None:
    """Delete a data set and return the key of its uploaded archive, to be released; None: it was not uploaded.

    Raises DatasetNotFound, and ApiError 409 while jobs refer to it.
    """
    with database.write() as session:
        dataset = get_row(session, caller, id_or_name)
        dataset_id, name, upload_key = dataset.id, dataset.name, dataset.upload_key
        if queries.is_used_unlabelled(session, dataset):
            raise ApiError(
                409,
                "dataset_in_use",
                "Jobs that have not ended use images of this data set.",
                "Cancel these jobs, or wait until they have ended.",
            )
        try:
            session.execute(delete_from(tables.Dataset).where(tables.Dataset.id == dataset_id))
        except IntegrityError as error:
            hint = "The list of jobs can be filtered by data set; register corrected files under a new name."
            raise ApiError(409, "dataset_in_use", "Jobs refer to this data set.", hint) from error
        audit.record(session, caller.actor, "dataset.delete", [dataset_id], name=name)
        session.commit()
    return upload_key


def get_row(session: Session, caller: Caller, id_or_name: str) -> tables.Dataset:
    """Return the row of a data set. Raises DatasetNotFound."""
    dataset = caller.find_dataset(session, id_or_name)
    if dataset is None:
        raise DatasetNotFound("There is no data set of this id or name.", "The list of data sets has their names.")
    return dataset


def _resolve_files(request: DatasetCreate, split: SplitName, root: Path) -> SplitFiles:
    """Return the files of a split, by default those of the standard layout. Raises InvalidField if they are missing."""
    requested = request.train if split == "train" else request.val
    split_files = requested or SplitFiles(
        images=f"{request.name}/{split}", annotations=f"{request.name}/annotations/instances_{split}.json"
    )
    files.resolve_folder(root, split_files.images, f"{split}.images")
    files.resolve_file(root, split_files.annotations, f"{split}.annotations")
    return split_files


def _add(database: Database, caller: Caller, name: str, train: SplitFiles, val: SplitFiles) -> tables.Dataset:
    values = {
        "id": ids.new_id("ds"),
        "name": name,
        "owner": caller.owner,
        "train_images": train.images,
        "train_annotations": train.annotations,
        "val_images": val.images,
        "val_annotations": val.annotations,
    }
    with database.write() as session:
        statement = insert(session, tables.Dataset).values(values)
        dataset = session.scalar(
            statement.on_conflict_do_nothing(index_elements=["owner", "name"]).returning(tables.Dataset)
        )
        if dataset is not None:
            audit.record(session, caller.actor, "dataset.register", [dataset.id], name=name)
        session.commit()
    if dataset is None:
        hint = "Choose another name, or delete that data set first."
        raise ApiError(409, "name_taken", "A data set of this name exists already.", hint)
    return dataset


def _to_response(dataset: tables.Dataset) -> Dataset:
    result = None if dataset.check_result is None else DatasetCheckResult.model_validate(dataset.check_result)
    return Dataset(
        id=dataset.id,
        name=dataset.name,
        status=dataset.status,
        train=SplitFiles(images=dataset.train_images, annotations=dataset.train_annotations),
        val=SplitFiles(images=dataset.val_images, annotations=dataset.val_annotations),
        counts=result and _split_counts(result),
        classes=dataset.classes,
        class_table=result.train.classes if result and result.train else None,
        issue_count=result and result.issue_count,
        issues=result.issues[:_MAX_ISSUES] if result else [],
        warnings=result.warnings if result else [],
        uploaded=dataset.upload_key is not None,
        created_at=dataset.created_at,
    )


def _split_counts(result: DatasetCheckResult) -> SplitCounts:
    return SplitCounts(
        train=result.train.counts if result.train else None, val=result.val.counts if result.val else None
    )
