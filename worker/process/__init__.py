"""The engine as a child process: environment, GPUs, pipes, output and termination."""
