"""Scenes dealt out to several processes: by arithmetic alone, so that nobody has to ask anybody."""

from __future__ import annotations

from collections.abc import Mapping


def scenes_of_part(n_samples: Mapping[str, int], number: int, count: int) -> list[str]:
    """Names of the scenes of part `number` of `count`, sorted; every scene is in exactly one part.

    The longest scene goes first, each to the part that has least so far, which ends within 4/3 of the best
    balance there is (Graham, 1969).

    Args:
        n_samples: samples by scene name, of all parts together.
        number: counted from 0.
    """
    loads = [0] * count
    mine = []
    for name in sorted(n_samples, key=lambda name: (-n_samples[name], name)):
        part = loads.index(min(loads))
        loads[part] += n_samples[name]
        if part == number:
            mine.append(name)
    return sorted(mine)
