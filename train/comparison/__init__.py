"""The page that `compare.py` writes: several runs side by side. It needs no torch."""
