"""Average precision: the area under the precision envelope over all points (PASCAL VOC since 2010)."""

import numpy as np


def average_precision(hits: np.ndarray, positives: int) -> float:
    """AP of one class.

    hits: bool [M], whether each detection is a true positive, in the order of falling confidence. positives: the
    number of true instances. NaN without any; 0 without detections. Everingham et al., The PASCAL VOC challenge,
    2015, section 4.2.
    """
    if positives == 0:
        return float('nan')
    if len(hits) == 0:
        return 0.0
    found = np.cumsum(hits, dtype=np.float64)
    precision = found / np.arange(1, len(hits) + 1)
    recall = found / positives
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a larger one
    steps = np.flatnonzero(hits)  # recall rises at true positives only
    gains = np.diff(recall[steps], prepend=0.0)
    return float(np.sum(gains * envelope[steps]))
