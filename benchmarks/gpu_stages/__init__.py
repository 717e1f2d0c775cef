"""The stages of benchmarks/gpu_suite.py, most valuable first."""

from __future__ import annotations

from gpu_stages.stage import Context, Stage

__all__ = ["STAGES", "Context", "Stage"]

STAGES = (
    Stage(name="environment", title="The machine", module="machine", minutes=0.2, limit=1),
    Stage(name="operators", title="Operators against each other", module="operators", minutes=0.4, limit=2),
    Stage(name="parity", title="GPU against CPU", module="parity", minutes=0.8, limit=3),
    Stage(name="waits", title="Waits of a training step", module="waits", minutes=1.2, limit=3),
    Stage(name="forward", title="Frames a second", module="forward", minutes=1.0, limit=2.5),
    Stage(name="dump", title="A dump, by its command", module="dumps", minutes=0.7, limit=3),
    Stage(name="steps", title="Training steps", module="steps", minutes=2.0, limit=4),
    Stage(name="rerun", title="The same dump twice", module="rerun", minutes=0.4, limit=2),
    Stage(name="gain", title="What distillation gains", module="gain", minutes=2.3, limit=600),
)
