"""What `verify` found: one record a fault, and the sum of it."""

from dataclasses import dataclass, field

from cache_schema.inspection.tables import bytes_text
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

    def add(self, part: str, path: str, what: object, *, damage: bool = True) -> None:
        """Note a fault."""
        self.faults.append(Fault(part, path, str(what), damage))

    @property
    def complete(self) -> bool:
        """Whether all that is planned was read, and is as it was written."""
        return not self.faults and not self.missing_scenes

    @property
    def damaged_parts(self) -> list[str]:
        """Relative folders of the parts that a repair takes away."""
        return sorted({fault.part for fault in self.faults if fault.damage and fault.part})


def summary_rows(findings: Findings) -> list[tuple[str, str]]:
    """What was read and in which state it is, as names and values."""
    if findings.sealed:
        state = "sealed"
    elif findings.missing_scenes:
        state = f"unfinished, {counted(len(findings.missing_scenes), 'planned scene')} not there yet"
    else:
        state = "not sealed" + ("" if findings.planned else ", no plan says which scenes belong to it")
    read = f"{counted(findings.samples, 'sample')} in {counted(findings.scenes, 'scene')}"
    rows = [
        ("read", f"{read}, {bytes_text(findings.n_bytes)}"),
        ("state", state),
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
    if findings.complete:
        rows.append(("result", "every byte is as it was written"))
    elif not findings.faults:
        rows.append(("result", f"not everything was read; missing: {some(findings.missing_scenes)}"))
    return rows
