"""The README.md that lies beside the data."""

from collections.abc import Mapping

_TEXT = """# MocapStreet, size `{size}`, seed {seed}

Rendered people who do real movements: 15 takes of motion capture and five procedural movements (standing, squatting,
sitting, waving, clapping), drawn as capsules. Format {version}, made with

    python tools/make_mocapstreet.py --out DIR --size {size} --seed {seed}

The same seed gives the same frames bit for bit on one machine and set of library versions, and the same files.

## What is here

| path | is |
| --- | --- |
| `street/train/`, `street/val/` | mp4, {street}, 1 to 4 people |
| `street/ava_{{train,val}}.csv` | boxes and labels on keyframes (whole seconds), AVA layout with person ids |
| `street/action_list.pbtxt` | the classes of the boxes |
| `street/detections_{{train,val}}.csv` | simulated person detections, LFB/SlowFast layout |
| `street/segments.json` | when anybody does anything but stand, ActivityNet layout, both subsets |
| `street/table_{{train,val}}.csv` | boxes and segments in vidloc's own table |
| `studio/`, `yard/` | clips of one person, one label each: `train.txt`, `val.txt`, `classes.txt`, `videos/` |
| `mocapstreet.json` | counts, seed, versions, and sha256 sums over the rendered frames |

Times are seconds of the video, boxes (x1, y1, x2, y2) are shares of width and height. A box encloses exactly the
pixels of a person that can be seen; people of whom too little can be seen have none. Several labels may hold at once
(standing and waving). The person ids of `ava_*.csv` are the tracks of the table.

The detections are true boxes with errors, {recall:.1%} of the validation people are found at an overlap of a half, and
{precision:.1%} of the validation detections are right. In the training file a detection carries the labels of the true
box that it overlaps by 0.75 or more; in the validation file no detection carries labels.

## Counts

| | train | val |
| --- | --- | --- |
{counts}

Share of the training boxes that carry each label (labels may hold together):
{shares}

## What training and validation share, and what they do not

Both show the same movements: there is one take of each action, two of dancing and of getting up. No random draw is
shared: scripts, cut, speed, direction, mirror image, body height, habits and trembling of the joints, clothes, colours,
light, camera and background of each video come from a random stream of its own, whose key is (seed, set, split,
number of the video). So a good score says that actions are recognised from new sides, on other people and in other
company. It does not say that another take of the same action would be.

## Licence

The data, like the program that draws it, is under the Apache License 2.0. The motion-capture takes were taken from
pybullet 3.2.7 (zlib licence); the file NOTICE of vidloc says where they come from.
"""


_UNTRIMMED = """
## The untrimmed videos

Added with `--untrimmed`; version {version} of them. {width}x{height}, {shortest} to {longest} s, {fps} fps, look
`{look}`, one or two people, who do something now and then. `untrimmed/annotations.json` (ActivityNet layout, both
subsets) has the time of every action; standing and walking between them are background. Two people may act at once, so
segments overlap, but no class is done by both at the same time. `untrimmed/classes.txt` lists the classes,
`untrimmed/train/` and `untrimmed/val/` have the videos.

| | train | val |
| --- | --- | --- |
| videos | {train} | {val} |
| seconds | {train_seconds:.0f} | {val_seconds:.0f} |
{segments}

Here too both splits show the same movements, and no random draw is shared.
"""


def text(manifest: Mapping) -> str:
    """The text for a manifest, which export.make writes as mocapstreet.json."""
    described = _sets(manifest)
    if 'untrimmed' not in manifest:
        return described
    before, licence, after = described.partition('\n## Licence')
    return before + _untrimmed(manifest['untrimmed']) + licence + after


def _untrimmed(manifest: Mapping) -> str:
    stage = manifest['stage']
    shortest, longest = stage['seconds']
    segments = '\n'.join(
        f'| {label} | {each["train"]} | {each["val"]} |' for label, each in manifest['segments'].items()
    )
    return _UNTRIMMED.format(
        version=manifest['version'],
        shortest=shortest,
        longest=longest,
        **{key: stage[key] for key in ('width', 'height', 'fps', 'look')},
        **manifest['videos'],
        train_seconds=manifest['seconds']['train'],
        val_seconds=manifest['seconds']['val'],
        segments=segments,
    )


def _sets(manifest: Mapping) -> str:
    names = [name for name in manifest['counts'] if not name.startswith('street boxes')]
    counts = [f'| {name} | {manifest["counts"][name]["train"]} | {manifest["counts"][name]["val"]} |' for name in names]
    shares = ', '.join(f'{label} {share:.3f}' for label, share in manifest['label_shares'].items())
    return _TEXT.format(
        size=manifest['size'],
        seed=manifest['seed'],
        version=manifest['version'],
        street='{width}x{height}, {seconds} s, {fps} fps, look `{look}`'.format(**manifest['street']),
        recall=manifest['detections']['recall'],
        precision=manifest['detections']['precision'],
        counts='\n'.join(counts),
        shares=shares,
    )
