"""API keys: endpoints under `/api-keys`."""
