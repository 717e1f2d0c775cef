"""The terms that a config can name.

The arithmetic is in train/losses, which knows tensors only; here is what is compared with what.
"""

from __future__ import annotations

from collections.abc import Mapping

from train.distillers.terms.generation import BevGeneration, PvGeneration
from train.distillers.terms.heatmap import BevHeatmap, PvAreaDivergence, PvDivergence
from train.distillers.terms.queries import FocalTerm, QueryTerm
from train.distillers.terms.term import SAMPLING_ARRAYS, Needs, Term, TermContext

TERMS: dict[str, type[Term]] = {
    "pv_divergence": PvDivergence,
    "pv_area_divergence": PvAreaDivergence,
    "bev_heatmap": BevHeatmap,
    "pv_generation": PvGeneration,
    "bev_generation": BevGeneration,
    "focal": FocalTerm,
    "query": QueryTerm,
}

__all__ = ["SAMPLING_ARRAYS", "TERMS", "Needs", "Term", "TermContext", "bev_map_of"]


def bev_map_of(name: str, options: Mapping[str, object]) -> str | None:
    """Which of the student's BEV maps a term reads, with these keywords: restored, generated or raw.

    Raises ValueError for a map that the term cannot read.
    """
    maps = TERMS[name].BEV_MAPS if name in TERMS else ()
    if not maps:
        return None
    chosen = options.get("bev_map", maps[0])
    if chosen not in maps:
        raise ValueError(f"bev_map: expected {' or '.join(maps)}, got {chosen!r}")
    return chosen
