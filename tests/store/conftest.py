from store_house import house, postgresql, sqlite, url

__all__ = ["house", "postgresql", "sqlite", "url"]
