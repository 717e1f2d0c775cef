"""nuScenes and COCO-format input: the index of a split, image preparation, datasets of both stages."""

from camera3d.data.can_bus import official_can_bus, relative_can_bus
from camera3d.data.datasets import DatasetChoice, streaming_frames
from camera3d.data.image_check import check_images
from camera3d.data.images import ImagePipeline
from camera3d.data.index import Frame, NuScenesIndex
from camera3d.data.kept_index import load_or_build_index
from camera3d.data.names import CAMERA_NAMES, CLASS_NAMES
from camera3d.data.nuscenes_reader import build_index
from camera3d.data.photometric import PhotometricDistortion
from camera3d.data.present import inputs_present
from camera3d.data.queue_dataset import NuScenesQueueDataset, collate_queue
from camera3d.data.segment_dataset import NuScenesSegmentDataset, SegmentFrame
from camera3d.data.split_index import Scene, SplitIndex
from camera3d.data.streaming import StreamingFrames

__all__ = [
    "CAMERA_NAMES",
    "CLASS_NAMES",
    "DatasetChoice",
    "Frame",
    "ImagePipeline",
    "NuScenesIndex",
    "NuScenesQueueDataset",
    "NuScenesSegmentDataset",
    "PhotometricDistortion",
    "Scene",
    "SegmentFrame",
    "SplitIndex",
    "StreamingFrames",
    "build_index",
    "check_images",
    "collate_queue",
    "inputs_present",
    "load_or_build_index",
    "official_can_bus",
    "relative_can_bus",
    "streaming_frames",
]
