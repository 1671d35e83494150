"""Uploaded data sets: unpack an untrusted archive and convert its layout to COCO."""
