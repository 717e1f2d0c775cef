"""What both stages share: detectors, layers, ops, nuScenes input, geometry and evaluation."""
