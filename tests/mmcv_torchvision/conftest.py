"""Loaded before the tests, which import `mmcv.ops`: it loads its operators at import."""

import mmcv_torchvision  # noqa: F401
