"""The official evaluations: of nuScenes, to NDS, mAP and errors, and of COCO, to mAP."""

from camera3d.evaluation.coco import CocoMetrics, evaluate_pictures, score_results_file
from camera3d.evaluation.evaluate import evaluate_detections, evaluate_detector
from camera3d.evaluation.metrics import ClassMetrics, Metrics
from camera3d.evaluation.predict import predict_split
from camera3d.evaluation.results_file import write_results
from camera3d.evaluation.score import score
from camera3d.evaluation.submission import attribute_of, submission_boxes

__all__ = [
    "ClassMetrics",
    "CocoMetrics",
    "Metrics",
    "attribute_of",
    "evaluate_detections",
    "evaluate_detector",
    "evaluate_pictures",
    "predict_split",
    "score",
    "score_results_file",
    "submission_boxes",
    "write_results",
]
