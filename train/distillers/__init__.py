"""A student with what it learns from: terms put together by config."""

from train.distillers.builder import build_distiller
from train.distillers.distiller import Distiller

__all__ = ["Distiller", "build_distiller"]
