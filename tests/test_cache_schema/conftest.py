"""Makes the shared cases and fixtures importable: the tests are imported by path and form no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from object_store import proxy, server_port, url  # noqa: F401
