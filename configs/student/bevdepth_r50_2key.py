"""BEVDepth with ResNet-50, 256×704 images, two key frames, to be trained: the official recipe without its traps.

The teacher config of the same size keeps what the released weights were trained with; here the cameras stand in the
frame that the boxes are in, and velocities weigh as much as other box numbers.
"""
_base_ = './bevdepth_r50.py'

model = dict(key_frames=2, criterion=dict(velocity_weight=1.0))
queue_length = 2
drop_history_frame = False
