"""Puts the videos of a data set into array_record files: quick to read and to copy, and checked.

python tools/prepare_data.py --format kinetics --annotations train.csv val.csv --videos DIR --out OUT
python tools/prepare_data.py --verify OUT

Stopped at any time, the same command goes on where it stopped. Over several machines: --shard 1/4 on the first, and so
on. Training then reads OUT in place of the folder of videos. docs/prepare.md says more.
"""

import argparse
import dataclasses
import re
import sys

from vidloc.annotations import formats
from vidloc.annotations.records import AnnotationError, VideoRecord
from vidloc.data import part, prepare, prepared, transcode

FORMATS = {
    'activitynet': formats.ActivityNetFiles,
    'ava': formats.AvaFiles,
    'clips': formats.ClipFiles,
    'folders': formats.FolderFiles,
    'kinetics': formats.KineticsFiles,
    'moma': formats.MomaFiles,
    'moments': formats.MomentsFiles,
    'something': formats.SomethingFiles,
    'table': formats.TableFiles,
    'ucf101': formats.UcfFiles,
}


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.verify:
            return _verify(options.verify)
        if options.join:
            return _tell(options.join, prepare.join(options.join))
        lacking = [f'--{name}' for name in ('format', 'annotations', 'videos', 'out') if not getattr(options, name)]
        if lacking:
            raise prepared.PreparedError(f'needs {", ".join(lacking)}; --help explains them')
        return _prepare(options)
    except (prepared.PreparedError, AnnotationError, OSError) as error:
        print(f'prepare_data: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('prepare_data: stopped; the same command goes on where this one was', file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    defaults, smaller = part.Options(), transcode.Transcode()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--format', choices=sorted(FORMATS), help='of the annotations')
    parser.add_argument('--annotations', nargs='+', help='all splits that are to be read from this set')
    parser.add_argument('--labels', default='', help='the action list (ava) or class list; needed where the format is')
    parser.add_argument('--subset', default='', help='for formats that have subsets')
    parser.add_argument('--prefix', default='', help='activitynet: what file names have before a video, such as v_')
    parser.add_argument('--videos', help='folder of the video files')
    parser.add_argument('--out', help='folder of the prepared set')
    parser.add_argument('--chunk_seconds', type=float, default=defaults.chunk_seconds, help='longer videos are cut')
    parser.add_argument(
        '--overlap', type=float, default=defaults.overlap, help='of chunks, seconds: at least the longest clip'
    )
    parser.add_argument('--file_mb', type=int, default=defaults.file_mb, help='size of a file, about')
    parser.add_argument('--workers', type=int, default=1, help='processes')
    parser.add_argument('--shard', type=_shard, default=(1, 1), metavar='I/N', help='this is machine I of N')
    parser.add_argument('--transcode', action='store_true', help='encode again: smaller, but not the same pictures')
    parser.add_argument('--short_side', type=int, default=smaller.short_side, help='--transcode: shorter side, pixels')
    parser.add_argument('--gop', type=int, default=smaller.gop, help='--transcode: frames between keyframes')
    parser.add_argument('--crf', type=float, default=smaller.crf, help='--transcode: quality, 0 (best) to 51')
    parser.add_argument('--join', metavar='OUT', help='only join the parts that several machines wrote')
    parser.add_argument('--verify', metavar='OUT', help='only hash a prepared set again and tell of damage')
    return parser


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d+)/(\d+)', text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f'{text!r} is not I/N with I from 1 to N, such as 1/4')
    return int(found[1]), int(found[2])


def _read(options: argparse.Namespace) -> list[VideoRecord]:
    """The records of all annotation files."""
    form = FORMATS[options.format]
    fields = {field.name for field in dataclasses.fields(form)}
    given = {name: getattr(options, name) for name in ('labels', 'subset', 'prefix') if getattr(options, name)}
    unknown = sorted(given.keys() - fields)
    if unknown:
        raise prepared.PreparedError(f'format {options.format} has no --{unknown[0]}')
    files = form(annotations=tuple(options.annotations), **given)
    if not all(files.files().get('labels', ('none needed',))):
        raise prepared.PreparedError(f'format {options.format} needs --labels')
    return files.read()


def _prepare(options: argparse.Namespace) -> int:
    import tqdm

    if options.workers < 1:
        raise prepared.PreparedError(f'--workers {options.workers} is not 1 or more')
    smaller = transcode.Transcode(options.short_side, options.gop, options.crf) if options.transcode else None
    settings = part.Options(options.chunk_seconds, options.overlap, options.file_mb, smaller)
    wanted = prepare.plan(_read(options), options.videos, settings)
    machine, machines = options.shard
    size = sum(each.size for each in wanted.parts if each.number % machines == machine - 1)
    print(f'{wanted.videos} videos, {wanted.size / 1e6:.1f} MB, in {len(wanted.parts)} parts')
    if machines > 1:
        print(f'machine {machine} of {machines}: {size / 1e6:.1f} MB')
    if wanted.missing:
        print(f'{len(wanted.missing)} videos are not in {options.videos}: {_some(wanted.missing)}')
    with tqdm.tqdm(total=size, unit='B', unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        manifest = prepare.write(
            options.out, wanted, workers=options.workers, machine=machine, machines=machines, seen=bar.update
        )
    if manifest is None:
        print(f'this machine is done. {prepared.unfinished(options.out)}')
        return 0
    return _tell(options.out, manifest)


def _tell(out: str, manifest: dict) -> int:
    """Prints what is in the set and how to use it; 1 if videos had to be left out."""
    counts = manifest['counts']
    print(
        f'{counts["videos"]} videos in {len(manifest["files"])} files, {manifest["bytes"] / 1e6:.1f} MB; '
        f'{counts["cut_into_chunks"]} long ones cut into chunks, {counts["long_but_kept_whole"]} long ones kept whole'
    )
    for each in manifest['kept_whole'][: prepared.SHOWN]:
        print(f'kept whole: {each["name"]}: {each["reason"]}')
    if manifest['options']['transcode']:
        print(f'encoded again: batches are not those of the files; {counts["resampled"]} videos were resampled')
    for each in manifest['failed'][: prepared.SHOWN]:
        print(f'left out: {each["name"]}: {each["reason"]}')
    if manifest['failed']:
        print(f'{len(manifest["failed"])} videos were left out; {out}/{prepared.MANIFEST} names them all')
    print(f'use it with --config.sources.NAME.videos={out} --config.eval_sources.NAME.videos={out}')
    return 1 if manifest['failed'] else 0


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = ', ...' if len(names) > prepared.SHOWN else ''
    return ', '.join(names[: prepared.SHOWN]) + more


def _verify(out: str) -> int:
    import tqdm

    size = prepared.read_manifest(out)['bytes']
    with tqdm.tqdm(total=size, unit='B', unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        damage = prepared.verify(out, bar.update)
    for each in damage:
        print(each)
    print(
        f'{len(damage)} files are damaged; copy them again, or prepare the set again' if damage else 'all is as written'
    )
    return 1 if damage else 0


if __name__ == '__main__':
    sys.exit(main())
