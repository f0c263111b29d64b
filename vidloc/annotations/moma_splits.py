"""Which videos of MOMA are for training and which for what else.

MOMA-LRG: splits/standard.json and splits/few_shot.json, `{"train": [activity id, ...], "val": [...], "test": [...]}`
(StanfordVL/moma, momaapi/lookup.py). MOMA 1.0: split_by_trim/{train,val}.txt, one id of a trimmed video a line
(d1ngn1gefe1/moma-hypergraph, datasets/moma_api/base_api.py).
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping

from vidloc.annotations import rows


def read_split(path: str | os.PathLike, subset: str | None = None) -> dict[str, str | None]:
    """{video: its subset} of one subset of a JSON file, or of all of them; a text file has no subsets (None).

    Raises AnnotationError: another layout, a subset that is not there, a video that is there twice.
    """
    findings = rows.Findings(path)
    text = rows.read_text(path, findings)
    if pathlib.Path(path).suffix.lower() != '.json':
        if subset is not None:
            fix = 'Name the file of the subset, such as train.txt, and no subset.'
            findings.stop('subset-unknown', None, f'a list of one id a line has no subset {subset!r}', fix)
        listed = [(None, line.strip()) for line in text.splitlines() if line.strip()]
    else:
        subsets = rows.json_root(text, findings)
        if not isinstance(subsets, dict) or not all(
            isinstance(ids, list) and all(isinstance(video, str) for video in ids) for ids in subsets.values()
        ):
            findings.stop('json-layout', 1, 'this is no file of splits', 'Expected {"train": ["id", ...], ...}.')
        if subset is not None and subset not in subsets:
            fix = f'Found: {", ".join(map(rows.shown, subsets)) or "none"}.'
            findings.stop('subset-unknown', None, f'there is no subset {subset!r}', fix)
        listed = [(name, video) for name, ids in subsets.items() for video in ids]
    found: dict[str, str | None] = {}
    for name, video in listed:
        if video in found:
            places = f'in {found[video]!r} and in {name!r}' if name != found[video] else 'twice'
            fix = 'A video belongs to one subset, and is there once.'
            findings.add('split-duplicate', None, f'the video {rows.shown(video)} is {places}', fix)
        found[video] = name
    findings.finish(None)
    wanted = {video: name for video, name in found.items() if subset is None or name == subset}
    if not wanted:
        findings.stop('file-empty', None, 'no video is named', 'Check that the file was written completely.')
    return wanted


def write_split(path: str | os.PathLike, subsets: Mapping[str, Iterable[str]]) -> None:
    """Writes {subset: videos} as JSON. Raises ValueError for a video that is there twice."""
    listed = {name: [rows.safe_name(video) for video in videos] for name, videos in subsets.items()}
    everything = [video for videos in listed.values() for video in videos]
    if len(set(everything)) < len(everything):
        raise ValueError('a video is there twice')
    rows.write_text(path, json.dumps(listed, indent=2, ensure_ascii=False) + '\n')
