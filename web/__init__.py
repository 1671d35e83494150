"""The page: static files that the API serves, a client of the public API. `docs/page.md` describes it."""
