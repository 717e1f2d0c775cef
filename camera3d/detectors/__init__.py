"""Camera-only detectors behind one protocol."""

from camera3d.detectors.builder import build_detector
from camera3d.detectors.protocol import Detections, Detector, DetectorOutputs, FeatureMap

__all__ = ["Detections", "Detector", "DetectorOutputs", "FeatureMap", "build_detector"]
