"""Which process dumps which scenes: decided by arithmetic alone, so that nobody has to ask anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from camera3d.data.scene_shares import scenes_of_part
from camera3d.errors import ConfigInvalid


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 0, of `count` parts. Written "1/4" to "4/4"."""

    number: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "i/n". Raises ConfigInvalid."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigInvalid(
                f"--shard {text}: expected i/n with i from 1 to n, such as 1/4, 2/4, 3/4 and 4/4"
            )
        return cls(int(match[1]) - 1, int(match[2]))

    def __str__(self) -> str:
        return f"{self.number + 1}/{self.count}"

    def split(self, inner: Shard) -> Shard:
        """Part `inner` of this part."""
        return Shard(self.number * inner.count + inner.number, self.count * inner.count)


def process_shard(option: str | None, environment: Mapping[str, str]) -> Shard:
    """The part of this process: `--shard i/n`, split further between the processes that torchrun started.

    Raises ConfigInvalid when the option, or RANK and WORLD_SIZE in the environment, make no sense.
    """
    outer = Shard() if option is None else Shard.parse(option)
    try:
        inner = Shard(int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1)))
    except ValueError:
        inner = Shard(0, 0)
    if not 0 <= inner.number < inner.count:
        raise ConfigInvalid(
            f"RANK={environment.get('RANK')} and WORLD_SIZE={environment.get('WORLD_SIZE')} in the"
            " environment do not go together. Unset both, or start with torchrun."
        )
    return outer.split(inner)


def scenes_of(shard: Shard, n_samples: Mapping[str, int]) -> list[str]:
    """Names of the scenes of a part; see `scenes_of_part`."""
    return scenes_of_part(n_samples, shard.number, shard.count)
