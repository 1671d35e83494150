# Written by `make client` from aio/__init__.py: change that file.
"""The client, and what its methods share."""
