"""Camera-only detectors behind one protocol."""

from camera3d.detectors.builder import build_detector
from camera3d.detectors.protocol import Detections, Detector, GroundTruth, Outputs, OutputSpec

__all__ = ["Detections", "Detector", "GroundTruth", "OutputSpec", "Outputs", "build_detector"]
