"""Changes of a scene's pictures that keep its geometry true."""

import numpy as np


def jitter_colors(images: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Change brightness, contrast, gamma, tint and saturation of a whole scene alike, and add noise.

    Args:
        images (`numpy.ndarray` of shape `(V, H, W, 3)`, uint8): views of one scene.
        rng (`numpy.random.Generator`)
        strength (`float`): 0 leaves the pictures as they are, 1 is the strongest.
    Returns:
        `numpy.ndarray` of shape `(V, H, W, 3)`, uint8.
    Raises:
        ValueError: if the strength is not in 0..1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must be in 0..1.")
    if strength == 0:
        return images.copy()
    values = images.astype(np.float32) / 255
    values = values ** np.float32(np.exp(strength * rng.uniform(-0.35, 0.35)))
    grey = values.mean(-1, keepdims=True)
    values = grey + (values - grey) * np.float32(1 + strength * rng.uniform(-0.8, 0.3))
    gain = (1 + strength * rng.uniform(-0.12, 0.12, size=3)) * (1 + strength * rng.uniform(-0.25, 0.25))
    values = (values - 0.5) * np.float32(1 + strength * rng.uniform(-0.25, 0.25)) + 0.5
    values = values * gain.astype(np.float32)
    noise = strength * rng.uniform(0.0, 0.03)
    values = values + rng.standard_normal(values.shape, dtype=np.float32) * np.float32(noise)
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


__all__ = ["jitter_colors"]
