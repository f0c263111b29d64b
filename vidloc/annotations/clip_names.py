"""Names of clips that were cut out of longer videos, as the files of Kinetics and of UCF-101 have them."""

import re

# The video's own id may hold '_' and '-', and may end like a clip itself.
_CLIP = re.compile(r'(.+)_([0-9]{6})_([0-9]{6})')
# UCF-101: clips of one group may share background and viewpoint (Soomro, Zamir and Shah, 2012).
_GROUP = re.compile(r'(v_.+_g[0-9]{2})_c[0-9]{2}')


def clip_name(name: str) -> tuple[str, float, float] | None:
    """(video, start, end) in seconds of the whole video, of `<video>_SSSSSS_EEEEEE` without extension; None else."""
    found = _CLIP.fullmatch(name)
    if found is None or int(found[2]) >= int(found[3]):
        return None
    return found[1], float(found[2]), float(found[3])


def whole(name: str) -> str | None:
    """The video, or the group of UCF-101, that a clip of this name (without extension) belongs to; None else."""
    if clip := clip_name(name):
        return clip[0]
    group = _GROUP.fullmatch(name)
    return group[1] if group else None
