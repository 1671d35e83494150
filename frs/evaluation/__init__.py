"""COCO evaluation, the bootstrap over validation images, and the report that compares runs."""
