"""Which inputs a dataset has of those that it may lack, such as the CAN bus expansion.

A detector that was shown zeros gives other numbers than one that was shown messages. So a dump must know
which of the two it does, and do it for all of its scenes.
"""

from __future__ import annotations

from collections.abc import Collection

from camera3d.data.can_bus import never_recorded
from camera3d.data.index import NuScenesIndex
from camera3d.errors import InputsPartial, shown

CAN_BUS = "can_bus"


def inputs_present(read: Collection[str], index: NuScenesIndex) -> dict[str, bool]:
    """Of the inputs that a detector reads and nuScenes may lack, whether `index` has them, by name.

    Args:
        read: names of the tensors of a frame, as in `Detector.inputs`.

    Raises:
        InputsPartial: some scenes have an input and others lack it. Scenes that nuScenes recorded without
            messages do not count: they have zeros for everybody.
    """
    if CAN_BUS not in read:
        return {}
    present = index.columns["can_bus_present"]
    having = [scene.name for scene in index.scene_rows if present[scene.first : scene.stop].all()]
    lacking = [name for name in index.scene_names if name not in set(having) and not never_recorded(name)]
    if having and lacking:
        raise InputsPartial(
            f"{len(lacking)} of the {len(index.scene_rows)} scenes of split {index.split!r} ({index.version})"
            f" lack the messages of the CAN bus expansion, which the detector reads, and others have them:\n"
            f"{shown(lacking)}\n"
            "Unpack can_bus.zip into the dataroot again, leave these scenes out (--scenes), or remove the"
            " can_bus folder to run on zeros everywhere."
        )
    return {CAN_BUS: bool(having)}
