"""Stage 1 in small: dump a random-weight detector over generated frames, and read a sample back.

Example:
    python -m extract.demo --out work/demo
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "configs" / "demo" / "tiny_teacher.py"
SCENES = {"scene-0001": 4, "scene-0002": 3}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="work/demo", help="folder for images and store (default work/demo)")
    out = Path(parser.parse_args(argv).out)

    from cache_schema.errors import CacheError
    from cache_schema.reader import TargetReader
    from camera3d.errors import Camera3DError
    from extract.demo_frames import generate_frames
    from extract.report import summary
    from extract.run import DumpOptions, dump_index

    store = out / "teacher.zarr"
    try:
        index = generate_frames(out / "frames", SCENES)
        options = DumpOptions(
            config=str(CONFIG),
            dataroot=str(out / "frames"),
            version=index.version,
            split=index.split,
            out=str(store),
        )
        report, spec = dump_index(options, index)
        reader = TargetReader(store)
        token = reader.sample_tokens[-1]
        arrays = reader[token]
    except (CacheError, Camera3DError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        print("`make clean-demo` removes what an earlier demo left.", file=sys.stderr)
        return 2
    print(summary(report, spec, store))
    print(f"\nsample {token} of {reader.scene_of(token)}, read back by its token:")
    for name, value in arrays.items():
        print(f"  {name:<19} {value.dtype!s:<8} mean {value.mean():+.3f}  largest {abs(value).max():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
