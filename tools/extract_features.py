"""Writes features of untrimmed videos, from any backbone, for runs that start from them.

python tools/extract_features.py --weights vit_g.pth --videos videos --out features --rate 7.5
python tools/extract_features.py --weights vit_g.pth --videos videos --out features --mode clips --every 4
python tools/extract_features.py --weights runs/pretrain@best --videos videos --out features --layers

OUT has a file for each video, and features.json, which says when its vectors are. Stopped at any time, the same command
goes on where it stopped, and several processes may write to one OUT: each video is done by one of them. --shard 1/4
takes every fourth video.
"""

import argparse
import os
import re
import sys
import time

from vidloc.annotations import activitynet
from vidloc.checkpoints import overrides
from vidloc.data import footage as footage_lib
from vidloc.inference import clips, features

SHOWN = 10


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return _extract(options)
    except KeyboardInterrupt:
        print('extract_features: stopped; the same command goes on where this one was', file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f'extract_features: {error}', file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    fields = features.Extraction
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', required=True, help='a weights file or folder, or the workdir of a run')
    parser.add_argument('--videos', required=True, help='the folder of videos')
    parser.add_argument('--out', required=True, help='the folder of features')
    parser.add_argument('--annotations', help='a JSON as of ActivityNet: its videos and fps')
    parser.add_argument('--prefix', default='', help='--annotations: what file names have before a video, such as v_')
    parser.add_argument(
        '--mode', choices=features.MODES, default=fields.mode, help='tokens of time, or one vector a clip'
    )
    parser.add_argument('--clip_frames', type=int, default=fields.clip_frames, help='frames of a clip')
    parser.add_argument(
        '--rate', type=float, default=fields.rate, help='frames a second, in place of those of the video'
    )
    parser.add_argument('--stride', type=int, help=f'tokens: every so-manieth frame of the video ({fields.stride})')
    parser.add_argument('--every', type=int, help=f'clips: frames from one clip to the next ({fields.every})')
    parser.add_argument('--layers', action='store_true', help='tokens: with the output of every layer')
    parser.add_argument('--size', type=int, nargs='+', help='of the input, pixels: one number, or height and width')
    parser.add_argument('--dtype', choices=tuple(features.DTYPES), default=fields.dtype, help='of what is written')
    parser.add_argument('--compute', default=fields.compute, help='float32 or bfloat16')
    parser.add_argument('--batch', type=int, default=fields.batch, help='clips that are computed at a time')
    parser.add_argument('--threads', type=int, default=fields.threads, help='videos that are decoded at a time')
    parser.add_argument('--shard', type=_shard, default=(1, 1), metavar='I/N', help='this is process I of N')
    parser.add_argument('--which', default='', help="the part of a weights file, such as 'encoder'")
    parser.add_argument('--set', nargs='+', default=(), metavar='NAME=VALUE', help='sizes that weights do not tell')
    return parser


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d+)/(\d+)', text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f'{text!r} is not I/N with I from 1 to N, such as 1/4')
    return int(found[1]), int(found[2])


def _extract(options: argparse.Namespace) -> int:
    import tqdm

    from vidloc.inference import encoder as encoder_lib
    from vidloc.inference import feature_folder

    footage, videos, missing = _videos(options)
    encoder = encoder_lib.open_encoder(
        options.weights, which=options.which, overrides=overrides.parse(options.set), compute=options.compute
    )
    extraction = _extraction(options, encoder)
    description = extraction.description(encoder)
    # Processes that count frames by other clocks cannot share a folder.
    counted = 'rate' if options.rate else 'annotations' if any(video.clock for video in videos) else 'videos'
    description |= {'clock': counted}
    run = extraction.program(encoder)
    folder = feature_folder.FeatureFolder(options.out, description)
    begun = time.monotonic()
    try:
        with tqdm.tqdm(total=len(videos), unit='video', disable=not sys.stderr.isatty()) as bar:
            report = features.extract(footage, videos, folder, run, extraction, bar.update)
    finally:
        folder.close()
    taken = max(time.monotonic() - begun, 1e-9)
    print(
        f'{report.written} videos written to {options.out}, {report.vectors} vectors of width {description["width"]}, '
        f'{report.written / taken:.2f} videos/s; {report.there} were there'
        + (f', {report.elsewhere} are being written by other processes' if report.elsewhere else '')
    )
    for video, why in sorted(report.broken.items()):
        print(f'left out: {video}: {why}')
    if missing:
        more = ', ...' if len(missing) > SHOWN else ''
        print(f'{len(missing)} videos are not in {options.videos}: {", ".join(missing[:SHOWN])}{more}')
    return 1 if report.broken or missing else 0


def _extraction(options: argparse.Namespace, encoder) -> features.Extraction:
    """The options that go together. Raises ExtractionError for those that do not."""
    whole = options.mode == 'clips'
    wrong = {'--stride': options.stride if whole or options.rate else None, '--every': None if whole else options.every}
    for name, value in wrong.items():
        if value is not None:
            raise features.ExtractionError(
                f'{name} has no meaning here: clips have every frame of the video, or --rate, and begin --every so '
                'many; tokens are of every --stride-th frame, or of --rate'
            )
    size = options.size or encoder.size
    if len(size) > 2:
        raise features.ExtractionError(f'--size {size}: one number, or height and width')
    given = {name: getattr(options, name) for name in ('stride', 'every') if getattr(options, name) is not None}
    same = ('mode', 'clip_frames', 'rate', 'layers', 'dtype', 'compute', 'batch', 'threads')
    return features.Extraction(**{name: getattr(options, name) for name in same}, **given, size=(size[0], size[-1]))


def _videos(options: argparse.Namespace):
    """(footage, the videos of this shard, names without a file). Raises ValueError, OSError."""
    if not os.path.isdir(options.videos):
        raise FileNotFoundError(f'--videos {options.videos}: there is no such folder')
    footage = footage_lib.VideoFiles(options.videos)
    if options.annotations:
        wanted = activitynet.read_activitynet(options.annotations, prefix=options.prefix)
        found = {record.video: footage.takes(record) for record in wanted}
        clocks = {record.video: record.fps or 0.0 for record in wanted}
    else:
        found = {name: (footage_lib.Take(key),) for name, key in _files(footage).items()}
        clocks = dict.fromkeys(found, 0.0)
    missing = [video for video, takes in found.items() if not takes]
    pieces = [video for video, takes in found.items() if len(takes) > 1 or (takes and takes[0].start)]
    if pieces:
        raise ValueError(f'{len(pieces)} videos are there as clips of them ({pieces[0]}); features are of whole videos')
    if strange := [video for video in found if '/' in video or video.startswith('.')]:
        raise ValueError(f'{strange[0]!r} is no name for a file of features')
    videos = [clips.Video(name, takes[0].key, clocks[name]) for name, takes in sorted(found.items()) if takes]
    if not videos:
        raise ValueError(
            f'--videos {options.videos}: there are no videos{" of the annotations" * bool(options.annotations)}'
        )
    number, count = options.shard
    return footage, videos[number - 1 :: count], sorted(missing)


def _files(footage: footage_lib.VideoFiles) -> dict[str, str]:
    """{name of the video: its key}. Raises ValueError for two of one name."""
    found: dict[str, str] = {}
    for path in sorted(footage.catalogue.paths):
        name = os.path.splitext(os.path.basename(path))[0]
        key = os.path.join(footage.folder, path)
        if name in found:
            raise ValueError(
                f'{found[name]} and {key} have one name, and features are called like their video: rename one'
            )
        found[name] = key
    return found


if __name__ == '__main__':
    sys.exit(main())
