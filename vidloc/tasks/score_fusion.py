"""Proposals named by a classifier of whole videos."""

from collections.abc import Iterable, Mapping

import numpy as np

_PREFIX = 'v_'  # ActivityNet's video files have it, its annotations and most files of scores do not


def of_video(scores: Mapping[str, np.ndarray], video: str) -> np.ndarray | None:
    """The scores [C] of a video, with or without the prefix v_ of ActivityNet; None if there are none."""
    other = video.removeprefix(_PREFIX) if video.startswith(_PREFIX) else _PREFIX + video
    return scores.get(video, scores.get(other))


def check(scores: Mapping[str, np.ndarray], videos: Iterable[str], where: str) -> None:
    """Raises ValueError naming the first videos that have no scores."""
    videos = list(videos)
    lacking = [video for video in videos if of_video(scores, video) is None]
    if lacking:
        raise ValueError(
            f'{where}: no scores for {len(lacking)} of {len(videos)} videos, such as {", ".join(lacking[:3])}; '
            f'the file names {len(scores)} videos, such as {", ".join(sorted(scores)[:3])}. '
            'Add them, or leave the videos out of the annotations'
        )


def fuse(
    segments: np.ndarray, scores: np.ndarray, external: np.ndarray, *, top: int, proposals: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each of the best `proposals` segments once for each of the video's best `top` classes, score sqrt(both).

    segments [N, 2], scores [N], external [C], the video's class scores -> segments [M, 2], scores [M], labels [M], by
    falling score. happyharrycn/actionformer_release, libs/utils/postprocessing.py (postprocess_results).
    """
    best = np.argsort(-scores, kind='stable')[:proposals]  # [n]
    classes = np.argsort(-external, kind='stable')[:top]  # [k]
    fused = np.sqrt(external[classes, None] * scores[best]).reshape(-1)  # [k, n] -> [k * n]
    order = np.argsort(-fused, kind='stable')
    return np.tile(segments[best], (len(classes), 1))[order], fused[order], np.repeat(classes, len(best))[order]
