"""Dispatch: choosing work, claiming it, and periodic maintenance."""
