"""Measures a paper's claims anew on MocapStreet, within so many minutes.

python tools/claims.py cofinetuning --minutes 45
python tools/claims.py losa --minutes 45
python tools/claims.py gra --minutes 45

Prints the plan with the seconds of each run first. Stopped, it goes on where it was when started again.
"""

import argparse
import dataclasses
import pathlib
import sys

from vidloc import build, workdir
from vidloc.annotations import records
from vidloc.checkpoints import store
from vidloc.data import sources
from vidloc.experiments import claims, study, workbench
from vidloc.inference import encoder, feature_folder, features
from vidloc.synthetic import export
from vidloc.train import loop

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
WRONG = (
    study.ClaimsError,
    workbench.Diverged,
    build.ConfigError,
    sources.DataError,
    records.AnnotationError,
    export.MocapStreetError,
    workdir.RunError,
    loop.Diverged,
    loop.TooManyBroken,
    store.CheckpointError,
    encoder.EncoderError,
    feature_folder.FolderError,
    features.ExtractionError,
    OSError,
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('name', choices=sorted(claims.STUDIES))
    parser.add_argument(
        '--minutes',
        type=_positive(float),
        default=45,
        help='for one start, once data and backbone are there (default: %(default)s)',
    )
    parser.add_argument('--steps', type=_positive(int), help='updates of the longest run (default: what fits)')
    parser.add_argument('--seeds', type=_positive(int), help='how many (default: those of the study)')
    parser.add_argument('--arms', nargs='+', metavar='ARM', help='only these (default: all)')
    parser.add_argument('--data', type=pathlib.Path, default='data/mocapstreet-small', help='made if not there')
    parser.add_argument(
        '--backbone', help='losa: workdir of a pretrained one; gra: folder of them (default: pretrained first, in OUT)'
    )
    parser.add_argument('--out', type=pathlib.Path, help='folder of the results (default: runs/claims/NAME)')
    asked = parser.parse_args(arguments)
    chosen = claims.STUDIES[asked.name]
    if asked.seeds:
        chosen = chosen.with_seeds(asked.seeds)
    if asked.arms:
        known = [arm.name for arm in chosen.arms]
        if unknown := [name for name in asked.arms if name not in known]:
            parser.error(f'{asked.name} has no arm {unknown[0]!r}; its arms are {", ".join(map(repr, known))}')
        arms = tuple(arm for arm in chosen.arms if arm.name in asked.arms)
        if missing := sorted({getattr(arm, 'after', '') for arm in arms} - {''} - set(asked.arms)):
            parser.error(f'the arms given begin with the weights of {missing[0]!r}; name it, too')
        kept = tuple(claim for claim in chosen.claims if {claim.better, claim.than} <= set(asked.arms))
        chosen = dataclasses.replace(chosen, arms=arms, claims=kept)
    if asked.backbone:
        if not hasattr(chosen, 'backbone'):
            parser.error(f'{asked.name} has no --backbone')
        chosen = dataclasses.replace(chosen, backbone=asked.backbone)
    out = asked.out or pathlib.Path('runs/claims') / asked.name

    def say(text: str) -> None:
        print(text, flush=True)

    try:
        bench = chosen.prepare(CONFIGS, asked.data, out, say)
        say(study.measure(chosen, bench, out, minutes=asked.minutes, steps=asked.steps, say=say))
    except WRONG as error:
        print(f'claims: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'claims: interrupted; the same command goes on from {out}.', file=sys.stderr)
        return 130
    return 0


def _positive(kind):
    def parse(text: str):
        value = kind(text)
        if not 0 < value < float('inf'):
            raise argparse.ArgumentTypeError(f'{text} is not a number above 0')
        return value

    parse.__name__ = kind.__name__
    return parse


if __name__ == '__main__':
    sys.exit(main())
