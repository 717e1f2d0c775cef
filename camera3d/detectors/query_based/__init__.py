"""What detectors with object queries share: branches, box refinement, set criterion, decoding."""
