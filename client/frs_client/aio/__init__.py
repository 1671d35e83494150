"""The client, and what its methods share."""
