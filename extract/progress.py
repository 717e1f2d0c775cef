"""How far a store is: a bar that counts the samples of every process that dumps into it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Self

from tqdm import tqdm

from cache_schema.storage import S3Path
from cache_schema.writer import StoreWriter

# How often the store is asked what others published: a folder answers in milliseconds, a bucket in seconds.
SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_LOOKS_S3 = 5.0, 60.0


class StoreProgress:
    """A bar over all samples that the store is to hold; use it in a `with` block.

    It shows the published scenes, whoever wrote them, and what this process has done of others. Rate and
    remaining time are those of all processes together.

    Args:
        writer: of the store.
        own: samples of this process's scenes by name; what the bar counts when the store has no plan.
        shown: whether there is a bar at all.
    """

    def __init__(self, writer: StoreWriter, own: Mapping[str, int], *, shown: bool) -> None:
        self._writer = writer
        self._n_samples = own if writer.plan is None else writer.plan.n_samples
        self._seconds = SECONDS_BETWEEN_LOOKS_S3 if isinstance(writer.path, S3Path) else SECONDS_BETWEEN_LOOKS
        self._here: Counter[str] = Counter()
        self._published: set[str] = set()
        self._next_look = 0.0
        self._shown = shown
        if shown:
            self._look()
        # An average over the whole run: scenes of others arrive whole, and would look like haste for a while.
        self.bar = tqdm(
            total=sum(self._n_samples.values()),
            initial=self._n_done(),
            unit="sample",
            desc="dump",
            disable=not shown,
            smoothing=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._look()
            self._draw()
        self.bar.close()

    def begin(self, scene_name: str) -> None:
        """This process starts on a scene."""
        self.bar.set_postfix_str(scene_name)

    def sample(self, scene_name: str) -> None:
        """This process has done a sample of a scene."""
        self._here[scene_name] += 1
        if self._shown and time.monotonic() >= self._next_look:
            self._look()
        self._draw()

    def _look(self) -> None:
        self._published = set(self._writer.published_scenes()) & set(self._n_samples)
        self._next_look = time.monotonic() + self._seconds

    def _n_done(self) -> int:
        others = sum(self._n_samples[name] for name in self._published)
        return others + sum(n for name, n in self._here.items() if name not in self._published)

    def _draw(self) -> None:
        self.bar.update(self._n_done() - self.bar.n)
