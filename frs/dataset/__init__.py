"""COCO data sets: read, check and convert annotations and images, and draw synthetic ones."""
