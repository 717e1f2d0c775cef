"""The small frames that queues and segments of frames are tested on."""

from __future__ import annotations

from camera3d.data import ImagePipeline

SCENES = {"scene-0061": 8, "scene-0553": 6}
RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
PIPELINE = ImagePipeline(
    scale=0.25, pad_hw=(24, 40), mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), to_rgb=False
)
