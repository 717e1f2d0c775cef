"""Looking at stores without a detector: what they hold, whether it is whole, how two of them differ."""
