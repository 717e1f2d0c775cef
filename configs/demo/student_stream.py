"""The demo's student with a carried history: a frame a step, and the state of the one before."""

_base_ = "./student.py"

history = "stream"
segment_length = 10  # as long as the demo's scenes
single_frame_steps = 50
