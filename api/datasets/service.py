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
from store.db import ids, queries, tables
from store.db.database import Database, insert

_ISSUES_SHOWN = 20


def register(context: Context, caller: Caller, request: DatasetCreate) -> Dataset:
    """Raises InvalidField where files are missing, ApiError 409 where the name is taken."""
    root = context.settings.datasets_root
    train, val = (_files(request, split, root) for split in ("train", "val"))
    dataset = _add(context.database, caller, request.name, train, val)
    checks.check_new(context.database, context.settings, dataset)
    return find(context.database, caller, dataset.id)


def listing(database: Database, caller: Caller, limit: int, cursor: str | None) -> Page[Dataset]:
    with database.read() as session:
        query = select(tables.Dataset).where(caller.visible(tables.Dataset))
        rows, next_cursor = newest_first(session, query, tables.Dataset, limit, cursor)
    return Page(data=[_shown(row) for row in rows], next_cursor=next_cursor)


def find(database: Database, caller: Caller, id_or_name: str) -> Dataset:
    with database.read() as session:
        return _shown(row(session, caller, id_or_name))


def check(database: Database, caller: Caller, id_or_name: str) -> DatasetCheck:
    with database.read() as session:
        dataset = row(session, caller, id_or_name)
    found = DatasetCheckResult.model_validate(dataset.check_result or {})
    return DatasetCheck(id=dataset.id, status=dataset.status, train=found.train, val=found.val, issues=found.issues)


def delete(database: Database, caller: Caller, id_or_name: str) -> str | None:
    """Returns the key of the archive it came as, to release. Raises ApiError 409 while jobs refer to it."""
    with database.write() as session:
        found = row(session, caller, id_or_name)
        dataset_id, upload_key = found.id, found.upload_key
        if queries.is_used_unlabelled(session, found):
            raise ApiError(409, "dataset_in_use", "Jobs that have not ended use its images.", "See GET /jobs.")
        try:
            session.execute(delete_from(tables.Dataset).where(tables.Dataset.id == dataset_id))
        except IntegrityError as error:
            hint = "See GET /jobs?dataset=...; register corrected files under a new name."
            raise ApiError(409, "dataset_in_use", "Jobs refer to this data set.", hint) from error
        session.commit()
    return upload_key


def row(session: Session, caller: Caller, id_or_name: str) -> tables.Dataset:
    """Raises DatasetNotFound."""
    dataset = caller.dataset(session, id_or_name)
    if dataset is None:
        raise DatasetNotFound("No such data set.", "See GET /datasets.")
    return dataset


def _files(request: DatasetCreate, split: SplitName, root: Path) -> SplitFiles:
    given = request.train if split == "train" else request.val
    half = given or SplitFiles(
        images=f"{request.name}/{split}", annotations=f"{request.name}/annotations/instances_{split}.json"
    )
    files.named_folder(root, half.images, f"{split}.images")
    files.named_file(root, half.annotations, f"{split}.annotations")
    return half


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
        session.commit()
    if dataset is None:
        hint = "Choose another name, or DELETE /datasets/{name} first."
        raise ApiError(409, "name_taken", "There is a data set of this name.", hint)
    return dataset


def _shown(dataset: tables.Dataset) -> Dataset:
    found = None if dataset.check_result is None else DatasetCheckResult.model_validate(dataset.check_result)
    return Dataset(
        id=dataset.id,
        name=dataset.name,
        status=dataset.status,
        train=SplitFiles(images=dataset.train_images, annotations=dataset.train_annotations),
        val=SplitFiles(images=dataset.val_images, annotations=dataset.val_annotations),
        counts=found and _counts(found),
        classes=dataset.classes,
        class_table=found.train.classes if found and found.train else None,
        issue_count=found and found.issue_count,
        issues=found.issues[:_ISSUES_SHOWN] if found else [],
        uploaded=dataset.upload_key is not None,
        created_at=dataset.created_at,
    )


def _counts(found: DatasetCheckResult) -> SplitCounts:
    return SplitCounts(train=found.train.counts if found.train else None, val=found.val.counts if found.val else None)
