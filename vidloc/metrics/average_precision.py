"""Average precision: the area under the precision envelope over all points (PASCAL VOC since 2010)."""

import numpy as np


def average_precision(hits: np.ndarray, positives: int, *, normal: float | None = None) -> float:
    """AP of one class.

    hits: bool [M], whether each detection is a true positive, in the order of falling confidence. positives: the
    number of true instances. NaN without any; 0 without detections. Everingham et al., The PASCAL VOC challenge,
    2015, section 4.2. normal: if given, the normalised AP_N, as of a class with this number of instances.
    """
    if positives == 0:
        return float('nan')
    if len(hits) == 0:
        return 0.0
    found = np.cumsum(hits, dtype=np.float64)
    recall = found / positives
    precision = found / np.arange(1, len(hits) + 1) if normal is None else normalised_precision(hits, positives, normal)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a larger one
    steps = np.flatnonzero(hits)  # recall rises at true positives only
    gains = np.diff(recall[steps], prepend=0.0)
    return float(np.sum(gains * envelope[steps]))


def normalised_precision(hits: np.ndarray, positives: int, normal: float) -> np.ndarray:
    """[M] precision as if the class had `normal` instances and the same recall.

    Hoiem et al., Diagnosing error in object detectors, 2012, section 2; Alwassel et al., Diagnosing error in temporal
    action detectors (DETAD), 2018, section 3.
    """
    found = np.cumsum(hits, dtype=np.float64)
    right = found / positives * normal
    return right / (right + np.arange(1, len(hits) + 1) - found)
