"""A NumPy rasteriser for capsules: z-buffer, shading, soft edges, and an id map.

All capsules of a run of frames are drawn together: their bounding boxes are listed as one flat array of
candidate pixels, and the nearest candidate wins each pixel.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vidloc.synthetic import looks
from vidloc.synthetic.camera import Camera
from vidloc.synthetic.skeleton import CLOTH_INDEX, RADII

# Candidate pixels in one pass; many more fall out of the processor's cache.
PASS = 30_000
# A band of this many pixels beyond a capsule's outline is drawn mixed with the background.
SOFT = 0.5
# Depth is compared in steps of 1/4096 m. A key packs (soft?, depth, number of the candidate).
_DEPTH_STEPS = 4096.0
_NUMBER_BITS = 24
_SOFT_KEY = np.int64(1) << 60
_EMPTY_KEY = np.iinfo(np.int64).max
# The dark patch under a person: half width and half depth in metres, and what remains of the light at its centre.
_PATCH = (0.34, 0.2)
_PATCH_LIGHT = 0.62


@dataclasses.dataclass(frozen=True)
class Figure:
    """A person to draw: capsule ends [T, K, 2, 3] in the world, size factor, colours float32 [7, 3]."""

    ends: np.ndarray
    size: float
    colours: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pillar:
    """A vertical post in front of people: place (x, z) and half width in metres, height, RGB."""

    x: float
    z: float
    half_width: float
    height: float
    colour: np.ndarray


@dataclasses.dataclass(frozen=True)
class Rendered:
    """frames uint8 [T, H, W, 3]; ids uint8 [T, H, W]: 0 background and things, i + 1 for figure i."""

    frames: np.ndarray
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Parts:
    """All capsules of all frames, projected: M = frames x capsules, frame by frame; [M, 2] holds (start, end)."""

    column: np.ndarray
    row: np.ndarray
    depth: np.ndarray
    radius: np.ndarray
    metres: np.ndarray
    colour: np.ndarray
    identity: np.ndarray
    per_frame: int


def _parts(figures: Sequence[Figure], pillars: Sequence[Pillar], camera: Camera) -> _Parts:
    frames = len(camera.turn)
    pieces = []
    for identity, figure in enumerate(figures, start=1):
        radii = RADII * figure.size
        pieces.append((figure.ends, radii, figure.colours[CLOTH_INDEX], np.full(len(radii), identity)))
    for pillar in pillars:
        ends = np.array([[[pillar.x, 0.0, pillar.z], [pillar.x, pillar.height, pillar.z]]])
        ends = np.broadcast_to(ends, (frames, 1, 2, 3))
        pieces.append((ends, np.array([pillar.half_width]), pillar.colour[None], np.zeros(1, np.int64)))
    ends = np.concatenate([piece[0] for piece in pieces], axis=1)  # [T, K, 2, 3]
    metres, colour, identity = (np.concatenate([piece[i] for piece in pieces]) for i in (1, 2, 3))
    column, row, depth = camera.project(ends)
    radius = camera.focal * metres[None, :, None] / depth
    return _Parts(
        column=column.reshape(-1, 2).astype(np.float32),
        row=row.reshape(-1, 2).astype(np.float32),
        depth=depth.reshape(-1, 2).astype(np.float32),
        radius=radius.reshape(-1, 2).astype(np.float32),
        metres=np.tile(metres, frames).astype(np.float32),
        colour=np.tile(colour, (frames, 1)).astype(np.float32),
        identity=np.tile(identity, frames),
        per_frame=len(metres),
    )


def _spans(low: np.ndarray, high: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and number of pixels of intervals, clipped to [0, limit); each [M]."""
    first = np.clip(np.floor(low), 0, limit).astype(np.int64)
    return first, np.clip(np.ceil(high), 0, limit).astype(np.int64) - first


def _candidates(left, wide, top, tall) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pixels of M bounding boxes: the box each belongs to, its column and its row; flat arrays."""
    count = wide * tall
    box = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(box)) - np.repeat(np.cumsum(count) - count, count)
    down = number // np.maximum(wide, 1)[box]
    return box, left[box] + number - down * wide[box], top[box] + down


def _patches(figures: Sequence[Figure], camera: Camera, scene: np.ndarray) -> None:
    """Darkens the ground under each person in place; scene uint8 [T, H, W, 3]."""
    frames, height, width = scene.shape[:3]
    if not figures:
        return
    feet = np.stack([figure.ends.mean(axis=(1, 2)) for figure in figures], axis=1)  # [T, P, 3]
    lowest = np.stack([figure.ends[..., 1].min(axis=(1, 2)) for figure in figures], axis=1)  # [T, P]
    feet[..., 1] = 0.0
    column, row, depth = (axis.ravel() for axis in camera.project(feet))
    half = camera.focal * _PATCH[0] / depth
    # Flattened by the angle under which the camera sees the ground.
    flat = np.maximum(half * _PATCH[1] / _PATCH[0] * camera.eye / depth, 0.5)
    left, wide = _spans(column - half, column + half, width)
    top, tall = _spans(row - flat, row + flat, height)
    box, x, y = _candidates(left, wide, top, tall)
    away = ((x + 0.5 - column[box]) / half[box]) ** 2 + ((y + 0.5 - row[box]) / flat[box]) ** 2
    # Whoever is in the air casts less of it.
    strength = (1 - _PATCH_LIGHT) / (1 + 3 * np.maximum(lowest.ravel(), 0.0))
    light = 1 - strength[box] * np.maximum(1 - away, 0.0)
    pixels = ((box // len(figures)) * height + y) * width + x
    darkest = np.ones(frames * height * width, np.float32)
    np.minimum.at(darkest, pixels, light.astype(np.float32))
    touched = np.flatnonzero(darkest < 1)
    flat = scene.reshape(-1, 3)
    flat[touched] = np.rint(flat[touched] * darkest[touched, None]).astype(np.uint8)


def _draw(parts: _Parts, first: int, spans, scene, ids, light, ambient) -> None:
    """Draws one run of frames in place: capsules from `first` on; scene uint8 [F, H, W, 3], ids uint8 [F, H, W]."""
    frames, height, width = ids.shape
    run = slice(first, first + frames * parts.per_frame)
    box, columns, rows = _candidates(*(span[run] for span in spans))
    start_column, start_row = parts.column[run, 0], parts.row[run, 0]
    across, down = parts.column[run, 1] - start_column, parts.row[run, 1] - start_row
    inverse = 1 / np.maximum(across * across + down * down, np.float32(1e-6))
    thin, thick = parts.radius[run, 0], parts.radius[run, 1] - parts.radius[run, 0]

    x = columns.astype(np.float32) + np.float32(0.5) - start_column[box]
    y = rows.astype(np.float32) + np.float32(0.5) - start_row[box]
    dx, dy = across[box], down[box]
    along = np.clip((x * dx + y * dy) * inverse[box], np.float32(0), np.float32(1))
    x -= along * dx
    y -= along * dy
    radius = thin[box] + along * thick[box]
    squared, reach = x * x + y * y, radius + np.float32(SOFT)
    kept = np.flatnonzero(squared < reach * reach)
    box, columns, rows, x, y = box[kept], columns[kept], rows[kept], x[kept], y[kept]
    along, radius, distance = along[kept], radius[kept], np.sqrt(squared[kept])
    towards = np.sqrt(np.maximum(1 - (distance / radius) ** 2, np.float32(0)))
    near, far = parts.depth[run, 0], parts.depth[run, 1]
    depth = near[box] + along * (far - near)[box] - towards * parts.metres[run][box]
    key = (depth * np.float32(_DEPTH_STEPS)).astype(np.int64) << _NUMBER_BITS
    key += np.arange(len(key))
    key += np.where(distance <= radius, np.int64(0), _SOFT_KEY)
    pixels = (box // parts.per_frame * height + rows) * width + columns
    nearest = np.full(frames * height * width, _EMPTY_KEY)
    np.minimum.at(nearest, pixels, key)

    hit = np.flatnonzero(nearest != _EMPTY_KEY)
    won = nearest[hit] & ((1 << _NUMBER_BITS) - 1)
    box, distance, radius = box[won], distance[won], radius[won]
    outward = 1 / np.maximum(radius, distance)
    facing = x[won] * outward * light[0] - y[won] * outward * light[1] + towards[won] * light[2]
    shade = ambient + (1 - ambient) * np.maximum(facing, np.float32(0))
    colour = parts.colour[run][box] * shade[:, None]
    # Only where no body is: the band beyond an outline, fading from the body's colour to the background's.
    cover = np.clip((radius + np.float32(SOFT) - distance) / np.float32(SOFT), np.float32(0), np.float32(1))[:, None]
    flat = scene.reshape(-1, 3)
    flat[hit] = np.rint(flat[hit] * (1 - cover) + colour * cover).astype(np.uint8)
    ids.reshape(-1)[hit] = np.where(distance <= radius, parts.identity[run][box], 0)


def _backgrounds(backdrop: np.ndarray, camera: Camera) -> np.ndarray:
    """The backdrop as seen at each frame, uint8 [T, H, W, 3]; a turning camera sees a wider one slide by."""
    frames = len(camera.turn)
    spare = backdrop.shape[1] - camera.width
    if not spare:
        return np.repeat(np.rint(backdrop).astype(np.uint8)[None], frames, axis=0)
    shift = np.clip(camera.focal * np.tan(camera.turn) + spare / 2, 0, spare - 1e-3)
    whole = np.floor(shift).astype(np.int64)
    part = (shift - whole).astype(np.float32)
    columns = whole[:, None] + np.arange(camera.width)
    left, right = backdrop[:, columns], backdrop[:, columns + 1]  # [H, T, W, 3]
    mixed = left + (right - left) * part[None, :, None, None]
    return np.rint(mixed.transpose(1, 0, 2, 3), order='C').astype(np.uint8)


def render(
    figures: Sequence[Figure],
    camera: Camera,
    look: looks.Look,
    backdrop: np.ndarray,
    light: np.ndarray,
    *,
    pillars: Sequence[Pillar] = (),
    noise: np.random.Generator | None = None,
) -> Rendered:
    """Draws figures and pillars before a backdrop.

    Args:
      figures: the people; figure i gets id i + 1.
      camera: T frames of H x W pixels.
      look: ambient light and the sensor's noise are taken from it.
      backdrop: float32 [H, at least W, 3], RGB in [0, 255].
      light: unit vector towards the light, x right, y up, z towards the camera, float32 [3].
      pillars: posts; they hide what is behind them and have no id.
      noise: draws the sensor's noise; needed if the look has any.
    """
    frames, height, width = len(camera.turn), camera.height, camera.width
    scene = _backgrounds(backdrop, camera)
    ids = np.zeros((frames, height, width), np.uint8)
    if figures or pillars:
        _patches(figures, camera, scene)
        parts = _parts(figures, pillars, camera)
        reach = parts.radius + SOFT
        spans = (
            *_spans((parts.column - reach).min(axis=1), (parts.column + reach).max(axis=1), width),
            *_spans((parts.row - reach).min(axis=1), (parts.row + reach).max(axis=1), height),
        )
        load = (spans[1] * spans[3]).reshape(frames, -1).sum(axis=1)
        run = np.cumsum(load) // PASS
        for stage in np.unique(run):
            chosen = np.flatnonzero(run == stage)
            first, last = int(chosen[0]), int(chosen[-1]) + 1
            _draw(
                parts,
                first * parts.per_frame,
                spans,
                scene[first:last],
                ids[first:last],
                light,
                np.float32(look.ambient),
            )
    if look.noise:
        grain = np.float32(look.noise) * noise.standard_normal(scene.shape, np.float32)
        scene = np.rint(np.clip(scene + grain, 0, 255)).astype(np.uint8)
    return Rendered(scene, ids)


def boxes(ids: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest boxes around each person's visible pixels in one frame.

    Args:
      ids: uint8 [H, W], an id map.
      people: how many ids to look for, 1 to `people`.

    Returns:
      boxes float64 [people, 4], (x1, y1, x2, y2) in [0, 1], zeros for somebody unseen; visible pixels [people].
    """
    height, width = ids.shape
    found, counts = np.zeros((people, 4)), np.zeros(people, np.int64)
    for person in range(people):
        seen = ids == person + 1
        counts[person] = np.count_nonzero(seen)
        if counts[person]:
            columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
            found[person] = (
                columns[0] / width,
                rows[0] / height,
                (columns[-1] + 1) / width,
                (rows[-1] + 1) / height,
            )
    return found, counts
