"""The minimal server for a durable POST: FastAPI parses JSON, SQLite inserts one row and syncs it.

FLOOR_DATABASE=floor.db uvicorn --app-dir benchmarks floor:app
"""

import json
import os
import sqlite3
import threading
from typing import Annotated, Any

from fastapi import Body, FastAPI

app = FastAPI()
_lock = threading.Lock()
_database = sqlite3.connect(os.environ["FLOOR_DATABASE"], isolation_level=None, check_same_thread=False)
_database.execute("PRAGMA journal_mode=WAL")
_database.execute("PRAGMA synchronous=FULL")
_database.execute("CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, spec TEXT NOT NULL)")


@app.post("/jobs", status_code=201)
def post(spec: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    with _lock:
        row = _database.execute("INSERT INTO jobs (spec) VALUES (?)", [json.dumps(spec)])
    return {"id": row.lastrowid, **spec}
