"""Layers that more than one detector uses."""
