"""Database: connections, tables, schema revisions, common queries, API keys."""
