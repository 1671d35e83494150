"""Ready-made job specs: endpoints under `/recipes`."""
