"""The two sampling operators of the detectors, each with interchangeable implementations.

Imports torch and mmcv only. Nothing here needs a compiled extension to be correct: see `backend`.
"""

from camera3d.ops.backend import OpBackendError, describe_backends, op_backend, use_backend
from camera3d.ops.deform_attn import multi_scale_deformable_attention
from camera3d.ops.deform_conv import modulated_deform_conv2d

__all__ = [
    "OpBackendError",
    "describe_backends",
    "modulated_deform_conv2d",
    "multi_scale_deformable_attention",
    "op_backend",
    "use_backend",
]
