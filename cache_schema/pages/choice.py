"""Which samples a page shows: some scenes, spread over all, and in each some samples spread over its time."""

from collections.abc import Mapping, Sequence

import numpy as np

_SAMPLES_A_SCENE = 4  # fewer would be no way through time


def chosen_samples(scenes: Mapping[str, Sequence[str]], n_samples: int) -> dict[str, list[str]]:
    """At most so many sample tokens, by scene, in time order within one; all when there are no more."""
    wanted = min(n_samples, sum(map(len, scenes.values())))
    names = list(scenes)
    n_scenes = min(len(names), -(-n_samples // _SAMPLES_A_SCENE))
    while sum(len(scenes[name]) for name in _spread(names, n_scenes)) < wanted:
        n_scenes += 1
    names = _spread(names, n_scenes)
    share = dict.fromkeys(names, 0)
    while sum(share.values()) < wanted:
        # The next one goes to the scene that shows least of what it could.
        name = min((n for n in names if share[n] < len(scenes[n])), key=share.__getitem__)
        share[name] += 1
    return {name: _spread(scenes[name], share[name]) for name in names if share[name]}


def _spread(items: Sequence[str], n_items: int) -> list[str]:
    """So many of the items, evenly spread from the first to the last."""
    return [items[number] for number in np.linspace(0, len(items) - 1, n_items).round().astype(int)]
