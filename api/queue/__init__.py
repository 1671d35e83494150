"""Job queue: endpoint `/queue`."""
