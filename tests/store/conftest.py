from database_harness import harness, postgresql, sqlite, url
from object_storage import bucket, object_storage

__all__ = ["bucket", "harness", "object_storage", "postgresql", "sqlite", "url"]
