"""The keyframes of a scene: one unbroken chain of samples, evenly spaced.

The temporal model gives each frame its predecessor's BEV, so a hole would silently become a wrong motion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from camera3d.errors import SceneGap, shown

MAX_GAP_S = 0.9  # keyframes come at 2 Hz


def sample_chains(
    scenes: Iterable[Mapping], samples: Sequence[Mapping], max_gap_s: float = MAX_GAP_S
) -> list[list[Mapping]]:
    """For each scene record its sample records in time order.

    Raises SceneGap, all gaps of all scenes together, when a link is broken, the count differs from
    `nbr_samples`, the time does not increase, or two keyframes lie more than `max_gap_s` seconds apart.
    """
    by_token = {sample["token"]: sample for sample in samples}
    in_scene: dict[str, int] = {}
    for sample in samples:
        in_scene[sample["scene_token"]] = in_scene.get(sample["scene_token"], 0) + 1
    chains, gaps = [], []
    for scene in scenes:
        chain, faults = _walk(scene, by_token)
        faults += _count_faults(scene, chain, in_scene.get(scene["token"], 0), bool(faults))
        faults += _time_faults(chain, max_gap_s)
        chains.append(chain)
        gaps += [f"{scene['name']}: {fault}" for fault in faults]
    if gaps:
        raise SceneGap(
            f"the keyframes of these scenes are not one chain at 2 Hz:\n{shown(gaps)}\nUnpack the metadata"
            " again; or leave the scenes out (--scenes with the others, or a splits.json without them); or"
            f" allow a longer gap than max_gap_s = {max_gap_s:g} seconds (--max-gap-s)."
        )
    return chains


def _walk(scene: Mapping, by_token: Mapping[str, Mapping]) -> tuple[list[Mapping], list[str]]:
    chain, seen, previous, token = [], set(), "", scene["first_sample_token"]
    while token:
        sample = by_token.get(token)
        if sample is None:
            return chain, [f"sample {token} (after {previous or 'the start'}) is not in sample.json"]
        if token in seen:
            return chain, [f"sample {token} comes twice, the chain is a loop"]
        if sample["scene_token"] != scene["token"]:
            return chain, [f"sample {token} (after {previous or 'the start'}) belongs to another scene"]
        chain.append(sample)
        seen.add(token)
        if sample["prev"] != previous:
            return chain, [
                f"sample {token} names {sample['prev'] or 'none'} as prev, not {previous or 'none'}"
            ]
        previous, token = token, sample["next"]
    if previous != scene["last_sample_token"]:
        return chain, [f"the chain ends at sample {previous}, not at {scene['last_sample_token']}"]
    return chain, []


def _count_faults(scene: Mapping, chain: list, in_table: int, already_broken: bool) -> list[str]:
    # A broken link explains a wrong count: say it once.
    if already_broken or len(chain) == scene["nbr_samples"] == in_table:
        return []
    return [
        f"{len(chain)} keyframes in the chain and {in_table} in sample.json, nbr_samples is"
        f" {scene['nbr_samples']} (first sample {scene['first_sample_token']})"
    ]


def _time_faults(chain: list[Mapping], max_gap_s: float) -> list[str]:
    faults = []
    for before, after in pairwise(chain):
        step_us = after["timestamp"] - before["timestamp"]
        where = " and ".join(
            f"sample {sample['token']} at {sample['timestamp']} µs" for sample in (before, after)
        )
        if step_us <= 0:
            faults.append(f"time does not increase: {where}")
        elif step_us > max_gap_s * 1e6:
            faults.append(f"{step_us / 1e6:.3f} s without a keyframe: {where}")
    return faults
