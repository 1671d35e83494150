"""The worker: claims jobs, runs the engine as a child process and records its events and files."""
