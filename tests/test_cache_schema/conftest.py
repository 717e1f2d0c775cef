"""Makes the shared cases importable: the tests are imported by path and form no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
