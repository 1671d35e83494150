from object_storage import bucket, object_storage
from store_house import house, postgresql, sqlite, url

__all__ = ["bucket", "house", "object_storage", "postgresql", "sqlite", "url"]
