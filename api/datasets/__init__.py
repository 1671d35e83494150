"""Data sets: register, upload, check, list and delete them."""
