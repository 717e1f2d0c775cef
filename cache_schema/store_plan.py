"""Which scenes a store is to hold, said when it is begun: otherwise nobody could tell when it is complete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from cache_schema import names
from cache_schema.errors import FingerprintMismatch, Problem
from cache_schema.fields import Fact, each, fact, integer


@dataclass(frozen=True, kw_only=True)
class PlannedScene(Fact):
    """A scene that belongs into the store."""

    scene_name: Annotated[str, names.scene_name]
    n_samples: Annotated[int, integer(1)]


@dataclass(frozen=True, kw_only=True)
class StorePlan(Fact):
    """All scenes of a finished store, sorted by name."""

    scenes: Annotated[tuple[PlannedScene, ...], each(fact(PlannedScene))]

    @classmethod
    def of(cls, n_samples: Mapping[str, int]) -> "StorePlan":
        """From samples by scene name. Raises SpecInvalid."""
        return cls(
            scenes=tuple(PlannedScene(scene_name=n, n_samples=n_samples[n]) for n in sorted(n_samples))
        )

    @cached_property
    def n_samples(self) -> dict[str, int]:
        """Samples by scene name."""
        return {scene.scene_name: scene.n_samples for scene in self.scenes}

    def contradictions(self) -> list[Problem]:
        found = [scene.scene_name for scene in self.scenes]
        if found != sorted(set(found)):
            return [Problem("scenes", "names that are all different, sorted", "others")]
        return []

    def require(self, wanted: Mapping[str, int], store: object) -> None:
        """Raise FingerprintMismatch unless every wanted scene (samples by name) is planned just so."""
        planned = self.n_samples
        strangers = [name for name in sorted(wanted) if name not in planned]
        resized = [name for name in sorted(wanted) if planned.get(name, wanted[name]) != wanted[name]]
        if not strangers and not resized:
            return
        lines = [f"{store} was begun for other scenes; it is to hold {len(planned)}"]
        if strangers:
            lines.append(f"  not among them: {some(strangers)}")
        if resized:
            was = [f"{name} with {planned[name]} samples, not {wanted[name]}" for name in resized]
            lines.append(f"  of another length: {some(was)}")
        lines.append("Dump these scenes into another store, or leave them out with --scenes.")
        raise FingerprintMismatch("\n".join(lines))


def some(items: Sequence[str], limit: int = 5) -> str:
    """The first few names of a list that may be long, and how many there are besides."""
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
