"""Makes vidloc/synthetic/motions.npz from the pybullet wheel, once; users never need to run it.

pip download pybullet==3.2.7 --no-deps --only-binary :all: -d wheels
python tools/convert_motions.py wheels/pybullet-3.2.7-*.whl --out vidloc/synthetic/motions.npz
"""

import argparse
import json
import pathlib
import sys
import zipfile

import numpy as np

FOLDER = 'pybullet_data/data/motions/'
PREFIX = 'humanoid3d_'
CLIPS = 15
VALUES = 44
# First columns of the quaternions (w, x, y, z): root, chest, neck, right hip and ankle, right shoulder, left alike.
QUATERNIONS = (4, 8, 12, 16, 21, 25, 30, 35, 39)


def clip_rows(document: dict, name: str) -> tuple[np.ndarray, bool]:
    """(rows float64 [n, 44], loops): duration, root x y z, then 40 joint values with unit quaternions.

    Along a clip each quaternion keeps the sign that is nearest to the row before, so neighbours interpolate
    the short way.
    """
    rows = np.asarray(document['Frames'], np.float64)
    if rows.ndim != 2 or rows.shape[1] != VALUES:
        raise ValueError(f'{name}: rows of {VALUES} numbers were expected, found an array of {rows.shape}.')
    for first in QUATERNIONS:
        quaternion = rows[:, first : first + 4]
        quaternion = quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)
        turns = np.sign(np.sum(quaternion[1:] * quaternion[:-1], axis=1))
        signs = np.cumprod(np.concatenate([[1.0], np.where(turns < 0, -1.0, 1.0)]))
        rows[:, first : first + 4] = quaternion * signs[:, None]
    return rows, document['Loop'] == 'wrap'


def convert(wheel: pathlib.Path, out: pathlib.Path) -> int:
    """Writes `out` and returns the number of rows over all clips."""
    names, loops, lengths, tables = [], [], [], []
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.namelist()):
            if not (member.startswith(FOLDER + PREFIX) and member.endswith('.txt')):
                continue
            name = member[len(FOLDER + PREFIX) : -len('.txt')]
            rows, loop = clip_rows(json.loads(archive.read(member)), member)
            names.append(name)
            loops.append(loop)
            lengths.append(len(rows))
            tables.append(rows)
    if len(names) != CLIPS:
        raise ValueError(f'{wheel}: {len(names)} motion files found, {CLIPS} expected; is it pybullet 3.2.7?')
    np.savez_compressed(
        out,
        names=np.array(names),
        loops=np.array(loops),
        lengths=np.array(lengths, np.int32),
        rows=np.concatenate(tables).astype(np.float32),
    )
    return sum(lengths)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('wheel', type=pathlib.Path)
    parser.add_argument('--out', type=pathlib.Path, required=True, help='the .npz file to write')
    arguments = parser.parse_args()
    try:
        rows = convert(arguments.wheel, arguments.out)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        print(f'convert_motions: {error}', file=sys.stderr)
        return 1
    print(f'{arguments.out}: {CLIPS} clips, {rows} rows')
    return 0


if __name__ == '__main__':
    sys.exit(main())
