"""`distiller` of a config: which terms, where they look, and what the student starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmengine.config import Config

from camera3d.config_values import NUMBER, annotated_faults, keyword_faults, keywords, unknown
from camera3d.detectors.protocol import STARTS
from camera3d.errors import ConfigInvalid, shown
from train.distillers.areas import AreaOptions
from train.distillers.terms import TERMS, Needs, bev_map_of


@dataclass(frozen=True, kw_only=True)
class DistillerConfig:
    """`distiller` of a config, checked.

    Attributes:
        terms: keywords of each term, by its name in TERMS.
        areas: where the terms look.
        pv_levels: which of the student's image levels is compared with which of the teacher's; None pairs
            them in order.
        bev_mask_ratio: how likely the BEV generator hides a cell of an area.
        init_from_teacher: what the student's head starts from: one of STARTS.
    """

    terms: Mapping[str, Mapping[str, object]]
    areas: AreaOptions
    pv_levels: tuple[tuple[int, int], ...] | None = None
    bev_mask_ratio: float = 0.5
    init_from_teacher: str = "head"

    @classmethod
    def from_config(cls, config: Config) -> DistillerConfig:
        """Raises ConfigInvalid, naming everything that cannot be."""
        if "distiller" not in config:
            raise ConfigInvalid(
                f"config {config.filename or ''} has no `distiller`: give one of configs/distill"
            )
        given = config.distiller
        if not isinstance(given, dict) or not all(
            isinstance(given.get(name, {}), dict) for name in ("terms", "areas")
        ):
            raise ConfigInvalid(
                f"config {config.filename or ''}: distiller, its terms and its areas must be dicts"
            )
        known = {"terms", "areas", "pv_levels", "bev_mask_ratio", "init_from_teacher"}
        faults = [unknown("", name, known) for name in sorted(set(given) - known)]
        terms = {name: options or {} for name, options in given.get("terms", {}).items()}
        faults += [unknown("terms.", name, TERMS) for name in terms if name not in TERMS]
        faults += [
            f"terms.{name}: expected a dict of keywords, got {options!r}"
            for name, options in terms.items()
            if not isinstance(options, dict)
        ]
        for name, options in terms.items():
            if name in TERMS and isinstance(options, dict):
                faults += option_faults(name, options)
            try:
                bev_map_of(name, options if isinstance(options, dict) else {})
            except ValueError as error:
                faults.append(f"terms.{name}: {error}")
        start = given.get("init_from_teacher", "head")
        if start not in STARTS:
            faults.append(f"init_from_teacher: expected one of {', '.join(STARTS)}, got {start!r}")
        if not terms and start == "none":
            faults.append("terms: none, and no start from the teacher; use train/train_detector.py")
        areas = dict(given.get("areas", {}))
        faults += keyword_faults("areas", areas, AreaOptions)
        ratio = given.get("bev_mask_ratio", 0.5)
        faults += NUMBER.faults("bev_mask_ratio", ratio)
        levels = given.get("pv_levels")
        if levels is not None:
            try:
                levels = tuple((int(own), int(other)) for own, other in levels)
            except (TypeError, ValueError):
                faults.append(f"pv_levels: expected pairs (student's level, teacher's level), got {levels}")
        if faults:
            raise ConfigInvalid(
                f"the distiller of {config.filename or 'the config'} does not work:\n{shown(faults)}"
            )
        return cls(
            terms=terms,
            areas=AreaOptions(**areas),
            pv_levels=levels,
            bev_mask_ratio=ratio,
            init_from_teacher=start,
        )

    @property
    def needs(self) -> dict[str, Needs]:
        """What each configured term takes from the teacher."""
        return {name: TERMS[name].needs for name in self.terms}

    @property
    def reads_images(self) -> bool:
        """Whether a term compares image maps."""
        return any(needs.image_maps for needs in self.needs.values())

    @property
    def bev_maps(self) -> dict[str, str]:
        """Which of the student's BEV maps each term that can read one takes, see `bev_map_of`."""
        chosen = {name: bev_map_of(name, options) for name, options in self.terms.items()}
        return {name: bev_map for name, bev_map in chosen.items() if bev_map is not None}

    @property
    def reading_confidence(self) -> tuple[str, ...]:
        """The terms for which only what the teacher is sure of counts, or makes areas."""
        queries = self.areas.queries
        return tuple(
            name for name, needs in self.needs.items() if needs.confidence or (needs.areas and queries)
        )


def option_faults(name: str, options: Mapping[str, object]) -> list[str]:
    """What is wrong with the keywords of a term, as far as their names and annotations tell."""
    # What a term has no default for comes from the maps that are compared, not from a config.
    known = {key: p for key, p in (keywords(TERMS[name]) or {}).items() if p.default is not p.empty}
    faults = []
    for key, value in options.items():
        if key in known:
            faults += annotated_faults(f"terms.{name}.{key}", value, known[key])
        else:
            faults.append(unknown(f"terms.{name}.", key, known))
    return faults
