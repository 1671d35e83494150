"""The audit trail: endpoint `/audit`."""
