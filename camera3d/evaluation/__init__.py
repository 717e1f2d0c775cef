"""The official nuScenes detection evaluation: detections to results JSON to NDS, mAP and errors."""

from camera3d.evaluation.evaluate import evaluate_detections, evaluate_detector
from camera3d.evaluation.metrics import ClassMetrics, Metrics
from camera3d.evaluation.predict import predict_split
from camera3d.evaluation.results_file import write_results
from camera3d.evaluation.score import score
from camera3d.evaluation.submission import attribute_of, submission_boxes

__all__ = [
    "ClassMetrics",
    "Metrics",
    "attribute_of",
    "evaluate_detections",
    "evaluate_detector",
    "predict_split",
    "score",
    "submission_boxes",
    "write_results",
]
