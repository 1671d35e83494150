"""Training: batches, sampling, schedule, precision, devices, the process group, events and stop requests."""
