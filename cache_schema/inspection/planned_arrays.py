"""The arrays that a teacher will give, asked of whoever can build it from its config.

A store's contract knows no detector: who does registers as an entry point of GROUP.
"""

from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from cache_schema.array_spec import ArraySpec
from cache_schema.errors import CacheError

GROUPS = ("bev", "pv", "queries")
GROUP = "focalcache.planned_arrays"


def planned_arrays(config: Path, groups: Sequence[str]) -> tuple[ArraySpec, ...]:
    """The arrays of a dump with that config.

    Args:
        groups: of GROUPS.

    Raises CacheError for an unknown group, a config that nobody can build, or when nobody can.
    """
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown or not groups:
        raise CacheError(f"--arrays takes one or more of {', '.join(GROUPS)}; got {', '.join(groups)}")
    try:
        build = next(iter(entry_points(group=GROUP))).load()
    except (StopIteration, ModuleNotFoundError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else "focalcache's detectors"
        raise CacheError(
            f"a plan needs {missing}, which is not installed here: pip install 'focalcache[all]', or make"
            " setup in a clone"
        ) from error
    return build(config, groups)
