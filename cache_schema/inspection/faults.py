"""What `verify` found: one record a fault, and the sum of it."""

from dataclasses import dataclass, field, replace

from cache_schema.inspection.tables import bytes_text
from cache_schema.layers import LAYERS_GROUP
from cache_schema.store_plan import some
from cache_schema.wording import counted


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        part: relative folder of the scene or teacher head that has it; "" when it is the store itself.
        path: relative path of the file.
        what: what is wrong with it.
        damage: whether the part cannot be trusted; false for what merely does not belong there.
    """

    part: str
    path: str
    what: str
    damage: bool = True


@dataclass
class Findings:
    """What was looked at, and what was found.

    Attributes:
        digest: of the store, as its seal says; None when there is no seal that can be read.
        missing_scenes: planned and not there, which is no fault of a store that is not sealed.
        left_behind: temporary folders of dumps that run or were killed; not part of the store.
        aside: what was put aside, because it stood in the place of a scene; not part of the store either.
    layers: what was found in each layer, by its name.
    """

    scenes: int = 0
    samples: int = 0
    n_bytes: int = 0
    sealed: bool = False
    digest: str | None = None
    planned: bool = False
    has_head: bool = False
    missing_scenes: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    layers: dict[str, "Findings"] = field(default_factory=dict)

    def add(self, part: str, path: str, what: object, *, damage: bool = True) -> None:
        """Note a fault."""
        self.faults.append(Fault(part, path, str(what), damage))

    @property
    def complete(self) -> bool:
        """Whether all that is planned was read, and is as it was written, in the layers too."""
        own = not self.faults and not self.missing_scenes
        return own and all(layer.complete for layer in self.layers.values())

    def all_faults(self) -> list[Fault]:
        """Those of the store, then those of its layers, with paths relative to the store."""
        found = list(self.faults)
        for name, layer in self.layers.items():
            found += [replace(f, path=f"{LAYERS_GROUP}/{name}/{f.path}") for f in layer.faults]
        return found

    @property
    def damaged_parts(self) -> list[str]:
        """Relative folders of the parts that a repair takes away."""
        return sorted({fault.part for fault in self.faults if fault.damage and fault.part})


def summary_rows(findings: Findings) -> list[tuple[str, str]]:
    """What was read and in which state it is, as names and values."""
    rows = [
        ("read", _read(findings)),
        ("state", _state(findings)),
        ("teacher head", "there" if findings.has_head else "none"),
    ]
    if findings.digest is not None:
        rows.append(("digest", findings.digest))
    if findings.left_behind:
        rows.append(
            ("left behind", f"{len(findings.left_behind)} parts of dumps that still run, or were killed")
        )
    if findings.aside:
        rows.append(("put aside", ", ".join(findings.aside)))
    for name, layer in findings.layers.items():
        faults = f", {counted(len(layer.faults), 'fault')}" if layer.faults else ""
        rows.append((f"layer {name}", f"{_read(layer)}, {_state(layer)}{faults}"))
    missing = findings.missing_scenes + [
        f"{name}/{scene}" for name, layer in findings.layers.items() for scene in layer.missing_scenes
    ]
    if findings.complete:
        rows.append(("result", "every byte is as it was written"))
    elif not findings.all_faults():
        rows.append(("result", f"not everything was read; missing: {some(missing)}"))
    return rows


def _read(findings: Findings) -> str:
    read = f"{counted(findings.samples, 'sample')} in {counted(findings.scenes, 'scene')}"
    return f"{read}, {bytes_text(findings.n_bytes)}"


def _state(findings: Findings) -> str:
    if findings.sealed:
        return "sealed"
    if findings.missing_scenes:
        return f"unfinished, {counted(len(findings.missing_scenes), 'planned scene')} not there yet"
    return "not sealed" + ("" if findings.planned else ", no plan says which scenes belong to it")
