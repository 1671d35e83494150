"""Write deploy/helm/frs/files/claimable.sql, the query by which KEDA starts workers, from the store's own query."""

import re
from pathlib import Path

from sqlalchemy.dialects import postgresql

from store.requests.claimable import claimable_count
from store.scheduling.queue import GpuCapacity

FILE = Path(__file__).parents[1] / "deploy" / "helm" / "frs" / "files" / "claimable.sql"
FREE, AT_LEAST = 902, 903
"""Numbers that stand for the chart's parameters and occur nowhere else."""


def sql(capacity: GpuCapacity) -> str:
    """Return the query for workers of this capacity in PostgreSQL's dialect, on one line."""
    query = claimable_count(capacity).compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    return " ".join(str(query).split())


def template() -> str:
    """Return the query with `:gpus`, `:at_least` and `:default` (GPUs of a job that names no number)."""
    text = sql(GpuCapacity(FREE, FREE, AT_LEAST)).replace(str(FREE), ":gpus").replace(str(AT_LEAST), ":at_least")
    return re.sub(r"(coalesce\(\w+\.devices, )1\)", r"\1:default)", text) + "\n"


if __name__ == "__main__":
    FILE.write_text(template())
