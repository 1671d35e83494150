"""HTTP API of the distillation service (FastAPI)."""
