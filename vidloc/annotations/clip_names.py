"""Names of clips that were cut out of longer videos, as Kinetics' files have them: `<video>_SSSSSS_EEEEEE`."""

import re

# The video's own id may hold '_' and '-', and may end like a clip itself.
_CLIP = re.compile(r'(.+)_([0-9]{6})_([0-9]{6})')


def clip_name(name: str) -> tuple[str, float, float] | None:
    """(video, start, end) in seconds of the whole video, from a name without extension; None if it is no clip's."""
    found = _CLIP.fullmatch(name)
    if found is None or int(found[2]) >= int(found[3]):
        return None
    return found[1], float(found[2]), float(found[3])
