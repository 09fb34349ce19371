"""From logits to scores and ranks, once, for labelling and serving."""

import numpy as np
from numpy.typing import NDArray


def probabilities(logits: NDArray[np.float32], temperature: float | None) -> NDArray[np.float32]:
    """Softmax of logits (N×C) over the temperature, computed in float64 and rounded once."""
    scaled = logits.astype(np.float64) / (temperature or 1.0)
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


def ranking(logits: NDArray[np.float32], top_k: int) -> NDArray[np.intp]:
    """Return the classes of the `top_k` largest logits (N×C), or of all C, largest first: N×K.

    The sort is stable, so that equal scores keep the order of the label names.
    """
    order: NDArray[np.intp] = np.argsort(-logits, axis=1, kind="stable")
    return order[:, : min(top_k, logits.shape[1])]
