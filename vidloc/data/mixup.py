"""Mixup of clips (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"), on the host.

Rows 2k and 2k + 1 of a batch are mixed with each other, with a share drawn from the seeds of the two. So the result is
a function of the two examples alone: hosts, workers, devices and micro-batches change nothing, as long as no pair is
divided between hosts (pipeline.Plan sees to that). google-research/scenic, dataset_lib/dataset_utils.py, mixes row i
with row B - 1 - i and draws one share for the batch.
"""

from collections.abc import Mapping

import numpy as np

# Keeps these draws apart from others that start from the same seeds.
_STREAM = 0x6D697875


def mix(batch: Mapping[str, np.ndarray], alpha: float) -> dict[str, np.ndarray]:
    """Mixes each pair of neighbours: row a becomes share * a + (1 - share) * b, and b the reverse.

    Args:
      batch: as batching.collate makes it, without boxes; an even number of rows B. A new one is returned.
      alpha: shares are drawn from Beta(alpha, alpha), alpha > 0; one a pair.

    Returns:
      the batch with video uint8 [B,T,H,W,3], each value rounded to the nearest; labels float32 [B,C], soft;
      frame_valid [B,T], True where a frame is valid in both rows. All else (ids, seeds) stays that of the row.

    Raises:
      ValueError: an odd number of rows, or alpha not positive.
    """
    rows = len(batch['seed'])
    if rows % 2 or not 0 < alpha < float('inf'):
        raise ValueError(f'mixup of {rows} rows with alpha {alpha}: rows must be even and alpha positive.')
    video, labels = np.empty_like(batch['video']), np.empty_like(batch['labels'])
    for first in range(0, rows, 2):
        pair = [first, first + 1]
        seeds = np.random.SeedSequence([_STREAM, *(int(seed) for seed in batch['seed'][pair])])
        share = np.float32(np.random.Generator(np.random.Philox(seeds)).beta(alpha, alpha))
        for own, other in (pair, pair[::-1]):
            video[own] = np.rint(_blend(batch['video'][own], batch['video'][other], share))
            labels[own] = _blend(batch['labels'][own], batch['labels'][other], share)
    both = batch['frame_valid'].reshape(rows // 2, 2, -1).all(axis=1)  # [B, T] -> [B / 2, T]
    return {**batch, 'video': video, 'labels': labels, 'frame_valid': np.repeat(both, 2, axis=0)}


def _blend(one: np.ndarray, other: np.ndarray, share: np.float32) -> np.ndarray:
    """share * one + (1 - share) * other in float32; exactly `other` where both are equal."""
    start = other.astype(np.float32)
    return start + share * (one.astype(np.float32) - start)
