"""Documents in the database that another version may have written, during a rolling upgrade or before a rollback."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from frs.facts import RunFacts

M = TypeVar("M", bound=BaseModel)


def read_document(model: type[M], document: Mapping[str, Any] | None) -> M | None:
    """Return the document; None if there is none or this version cannot read it."""
    try:
        return None if document is None else model.model_validate(document)
    except ValidationError:
        return None


def read_facts(facts: Mapping[str, Any]) -> RunFacts:
    """Return the facts of a job without those that this version cannot read."""
    try:
        return RunFacts.model_validate(facts)
    except ValidationError as error:
        unreadable = {detail["loc"][0] for detail in error.errors()}
    return RunFacts.model_validate({name: fact for name, fact in facts.items() if name not in unreadable})
