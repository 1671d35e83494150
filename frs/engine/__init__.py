"""The engine: the training loop, its hook, checkpoints, result files and the trainer process."""
