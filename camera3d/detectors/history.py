"""How a training step sees the frames before: in a queue of its own, or by the state of the step before.

Shapes: B batch slots, T frames of a queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from camera3d.detectors.protocol import Detector, Outputs


class QueueHistory:
    """Every sample brings its own history, which is computed anew without gradient: the published recipe."""

    def outputs(self, detector: Detector, batch: Mapping[str, Tensor]) -> Outputs:
        """Outputs of the last frame of each queue, with gradient; see `Detector.training_outputs`."""
        return detector.training_outputs(batch)

    def forget(self) -> None:
        """Nothing is carried."""


class StreamHistory:
    """Each batch slot walks through scenes, and the state of its frame before is carried from step to step.

    This is the one place that holds a state between steps. It was made with the weights of the step before,
    by the very pass that was trained, and holds no gradient.
    """

    def __init__(self) -> None:
        self._state: object = None

    def outputs(self, detector: Detector, batch: Mapping[str, Tensor]) -> Outputs:
        """Outputs of each slot's frame, with gradient; see `Detector.streamed_outputs`.

        Args:
            batch: (B, 1, …), each frame the next one of its slot; `has_prev` false where a slot starts anew.
        """
        outputs, self._state = detector.streamed_outputs(batch, self._state)
        return outputs

    def forget(self) -> None:
        """The next step sees single frames."""
        self._state = None


History = QueueHistory | StreamHistory
