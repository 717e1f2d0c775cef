"""Feature maps as something to look at: three principal components as red, green and blue, and the norm."""

import numpy as np

_SAMPLE_CELLS = 20_000  # enough to find the main directions of a few hundred channels


def pca_rgb(maps: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] of maps (…, C, H, W), as (…, H, W, 3); equal features get equal colours in all maps.

    The components are those of all cells together, each stretched from its 1st to its 99th percentile and
    signed so that its largest entry is positive; where there are fewer than three, the rest is grey.
    """
    cells = np.moveaxis(maps, -3, -1).reshape(-1, maps.shape[-3]).astype(np.float32)
    step = max(1, len(cells) // _SAMPLE_CELLS)
    mean = cells[::step].mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(cells[::step] - mean, rowvar=False).reshape(len(mean), -1))
    axes = vectors[:, ::-1][:, :3]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    scores = (cells - mean) @ axes.astype(np.float32)
    low, high = np.percentile(scores[::step], (1, 99), axis=0)
    colours = np.full((len(cells), 3), 0.5, np.float32)
    spread = np.where(high > low, high - low, 1)
    colours[:, : scores.shape[1]] = np.clip((scores - low) / spread, 0, 1)
    return colours.reshape(*maps.shape[:-3], *maps.shape[-2:], 3)


def norm_map(feats: np.ndarray) -> np.ndarray:
    """Euclidean norm over the channels: (…, C, H, W) to (…, H, W)."""
    return np.sqrt(np.square(feats.astype(np.float32)).sum(axis=-3))


def sampling_density(
    sampling_locations: np.ndarray, attention_weights: np.ndarray, scores: np.ndarray, bev_hw: tuple[int, int]
) -> np.ndarray:
    """Where the decoder looks: attention per BEV cell, weighted by how sure each query is; (H, W), sum 1.

    Args:
        sampling_locations: (layers, queries, …, 2), x and y in [0, 1] of the BEV map.
        attention_weights: (layers, queries, …).
        scores: (queries,) in [0, 1].
    """
    weights = attention_weights.astype(np.float64)
    weights *= scores.reshape(1, -1, *(1 for _ in weights.shape[2:]))
    x, y = (sampling_locations[..., axis].reshape(-1).astype(np.float64) for axis in (0, 1))
    height, width = bev_hw
    density, _, _ = np.histogram2d(
        y, x, bins=(height, width), range=((0, 1), (0, 1)), weights=weights.reshape(-1)
    )
    return density / max(float(density.sum()), 1e-30)
