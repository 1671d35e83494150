"""Runs jobs: claims them, starts the engine as a child process and writes down what it tells."""
