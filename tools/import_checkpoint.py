"""Imports pretrained weights into a folder that configs name with init_from, and prints what became of every array.

python tools/import_checkpoint.py model.safetensors --out weights/vjepa2_l
python tools/import_checkpoint.py vitl.pt --out weights/vjepa2_l_encoder --which encoder
python tools/import_checkpoint.py ViT-B_16.npz --out weights/vit_b --into vivit --frames 32 --tubelet 2
"""

import argparse
import sys

from vidloc.checkpoints import conversion, inflation, overrides


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument('source', help='a file or folder: safetensors, .pt, .pth, .bin, npz, msgpack or orbax')
    found.add_argument('--out', required=True, help='the folder to write, which must not be there yet')
    found.add_argument('--which', default='', help="what to read of a file with several models, such as 'encoder'")
    found.add_argument('--allow', default='', metavar='REGEX', help='names of differences that may be passed over')
    found.add_argument('--set', nargs='+', default=(), metavar='NAME=VALUE', help='sizes that the file does not tell')
    found.add_argument('--into', choices=tuple(inflation.ENCODERS), help='the video model that an image ViT becomes')
    fields = conversion.Target
    found.add_argument('--frames', type=int, default=fields.frames, help='--into: frames of a clip')
    found.add_argument('--tubelet', type=int, default=fields.tubelet, help='--into: frames of a tubelet')
    found.add_argument('--temporal_layers', type=int, default=fields.temporal_layers, help='--into vivit')
    found.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='--into: of the input, pixels')
    found.add_argument('--inflate', choices=inflation.METHODS, default=fields.inflate, help='--into: of the filters')
    return found


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    into = None
    if options.into:
        size = tuple(options.size) if options.size else None
        layers = options.temporal_layers
        into = conversion.Target(options.into, options.frames, options.tubelet, layers, size, options.inflate)
    try:
        done = conversion.convert(
            options.source,
            options.out,
            which=options.which,
            allow=options.allow,
            overrides=overrides.parse(options.set),
            into=into,
        )
    except (ValueError, OSError) as error:
        print(f'import_checkpoint: {error}', file=sys.stderr)
        return 2
    print(f'{done.table}\n\nwritten to {options.out}; in a config:\n{done.config}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
