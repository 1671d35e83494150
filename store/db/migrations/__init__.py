"""Schema revisions, oldest first.

Each revision works with the previous version of the code: expand in one revision, contract in a later one.
"""
