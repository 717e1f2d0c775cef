"""The contract between the two stages: what a teacher-feature store holds and how it is written and read."""

__version__ = "0.1.0"
