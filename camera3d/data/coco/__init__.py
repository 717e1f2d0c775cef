"""COCO-format input: pictures of varying size with 2D boxes."""
