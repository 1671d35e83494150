"""One attempt of a job or worker request, from its inputs to its final status."""
