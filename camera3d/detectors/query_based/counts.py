"""What the numbers of a head with queries must be, said before torch trips over them."""

from __future__ import annotations

from camera3d.errors import ConfigInvalid


def require_counts(*, embed_dims: int, num_heads: int, **counts: int) -> None:
    """Raise ConfigInvalid unless all are 1 or more and the heads share the channels evenly."""
    faults = [
        f"{name} {value!r}: expected a whole number of 1 or more"
        for name, value in {"embed_dims": embed_dims, "num_heads": num_heads, **counts}.items()
        if not isinstance(value, int) or value < 1
    ]
    if not faults and embed_dims % num_heads:
        faults = [f"num_heads {num_heads}: expected a divisor of embed_dims {embed_dims}"]
    if faults:
        raise ConfigInvalid("; ".join(faults))
