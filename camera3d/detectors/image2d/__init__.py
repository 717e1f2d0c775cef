"""Detectors of mmdet 3 on single pictures, all through one adapter."""
