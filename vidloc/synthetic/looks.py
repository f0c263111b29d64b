"""Named looks: walls, grounds, light, clothes, camera movement and what stands in the way."""

import dataclasses

import numpy as np

from vidloc.synthetic.skeleton import CLOTHES

Colour = tuple[int, int, int]
SKIN: tuple[Colour, ...] = ((236, 188, 160), (208, 152, 118), (160, 108, 78), (108, 70, 50), (246, 208, 184))
HAIR: tuple[Colour, ...] = ((30, 24, 20), (72, 46, 28), (140, 98, 48), (96, 92, 92), (196, 160, 92))


@dataclasses.dataclass(frozen=True)
class Look:
    """How a set of videos looks.

    wall, ground, shirts, trousers, shoes: RGB palettes, one colour is drawn for a video or a person.
    varied: standard deviation added to every drawn colour.
    light: direction towards the light, x right, y up, z towards the camera; turned at random by up to `light_turn`.
    ambient: share of the colour that shadowed sides keep.
    texture: contrast of the pattern on wall and ground, in [0, 1].
    pan: the most the camera turns over a video, radians; shake: of its hand-held trembling, radians.
    occluders: the most pillars that stand between camera and people.
    noise: standard deviation of the sensor's noise, grey levels.
    """

    wall: tuple[Colour, ...]
    ground: tuple[Colour, ...]
    shirts: tuple[Colour, ...]
    trousers: tuple[Colour, ...]
    shoes: tuple[Colour, ...] = ((30, 30, 34), (90, 60, 40), (220, 220, 224))
    varied: float = 14.0
    light: tuple[float, float, float] = (-0.4, 0.7, 0.6)
    light_turn: float = 0.6
    ambient: float = 0.5
    texture: float = 0.0
    pan: float = 0.0
    shake: float = 0.0
    occluders: int = 0
    noise: float = 0.0


def harder(look: Look) -> Look:
    """The same palette with texture, a moving camera, pillars in the way and a noisy sensor."""
    return dataclasses.replace(
        look, texture=0.55, pan=0.25, shake=0.006, occluders=2, noise=3.0, varied=look.varied + 10.0
    )


_BRIGHT = ((210, 50, 46), (240, 190, 40), (40, 120, 200), (250, 250, 246), (46, 150, 80), (140, 60, 150), (24, 26, 40))
_DARK = ((40, 48, 84), (60, 60, 64), (104, 84, 60), (30, 32, 34), (88, 100, 112))
_PLAIN = Look(
    wall=((176, 184, 196), (196, 186, 170), (164, 176, 164), (186, 172, 182)),
    ground=((120, 118, 116), (136, 124, 108), (108, 116, 122)),
    shirts=_BRIGHT,
    trousers=_DARK,
)
LOOKS: dict[str, Look] = {
    'plain': _PLAIN,
    'hard': harder(_PLAIN),
    'studio': Look(
        wall=((232, 230, 226), (222, 226, 232), (236, 226, 214)),
        ground=((206, 202, 198), (196, 200, 204)),
        shirts=((230, 80, 60), (60, 90, 190), (30, 30, 32), (120, 170, 90), (160, 80, 160)),
        trousers=((30, 30, 36), (70, 80, 130), (130, 120, 110)),
        light=(0.1, 0.8, 0.7),
        light_turn=0.3,
        ambient=0.6,
    ),
    'yard': Look(
        wall=((150, 190, 226), (178, 198, 214), (140, 176, 200)),
        ground=((96, 132, 70), (116, 138, 84), (130, 118, 84)),
        shirts=((236, 232, 220), (200, 60, 60), (250, 210, 90), (60, 60, 70), (210, 130, 60)),
        trousers=((50, 60, 100), (90, 80, 60), (34, 34, 36)),
        light=(0.8, 0.6, 0.3),
        light_turn=0.9,
        ambient=0.4,
    ),
}


def _vary(colour: Colour, look: Look, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.asarray(colour, np.float64) + rng.normal(0.0, look.varied, 3), 0, 255)


def _pick(palette: tuple[Colour, ...], look: Look, rng: np.random.Generator) -> np.ndarray:
    return _vary(palette[int(rng.integers(len(palette)))], look, rng)


def dress(look: Look, rng: np.random.Generator) -> np.ndarray:
    """Colours of one person's clothes, float32 [7, 3] in the order of skeleton.CLOTHES."""
    skin, shirt = _pick(SKIN, look, rng), _pick(look.shirts, look, rng)
    trousers = _pick(look.trousers, look, rng)
    worn = {
        'skin': skin,
        'hair': _pick(HAIR, look, rng),
        'shirt': shirt,
        'forearms': shirt if rng.uniform() < 0.5 else skin,
        'trousers': trousers,
        'shins': trousers if rng.uniform() < 0.75 else skin,
        'shoes': _pick(look.shoes, look, rng),
    }
    return np.stack([worn[name] for name in CLOTHES]).astype(np.float32)


def light_direction(look: Look, rng: np.random.Generator) -> np.ndarray:
    """Unit vector towards the light, float32 [3]."""
    turn = rng.uniform(-look.light_turn, look.light_turn)
    x, y, z = look.light
    turned = np.array([x * np.cos(turn) + z * np.sin(turn), y, z * np.cos(turn) - x * np.sin(turn)])
    return (turned / np.linalg.norm(turned)).astype(np.float32)


def _pattern(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of four octaves, about zero with unit spread, [H, W]."""
    total = np.zeros(shape)
    for cell in (4, 8, 16, 32):
        coarse = rng.normal(size=(shape[0] // cell + 2, shape[1] // cell + 2))
        rows, columns = np.arange(shape[0]) / cell, np.arange(shape[1]) / cell
        r, c = rows.astype(int), columns.astype(int)
        fr, fc = (rows - r)[:, None], (columns - c)[None]
        upper = coarse[r][:, c] * (1 - fc) + coarse[r][:, c + 1] * fc
        lower = coarse[r + 1][:, c] * (1 - fc) + coarse[r + 1][:, c + 1] * fc
        total += (upper * (1 - fr) + lower * fr) / 2
    return total


def backdrop(look: Look, height: int, width: int, horizon: float, rng: np.random.Generator) -> np.ndarray:
    """The empty scene, float32 [height, width, 3]: wall above, ground from a little under the horizon down."""
    wall, ground = _pick(look.wall, look, rng), _pick(look.ground, look, rng)
    rows = np.arange(height)[:, None, None] + 0.5
    edge = min(horizon + 0.1 * height, height - 1.0)
    # One row of transition keeps the edge from jumping when the camera trembles.
    low = np.clip(rows - edge, 0.0, 1.0)
    shade = 1.0 + 0.10 * (0.5 - rows / height)
    scene = (wall * (1 - low) + ground * low) * shade + np.zeros((1, width, 1))
    if look.texture:
        scene = scene * (1 + 0.45 * look.texture * _pattern((height, width), rng)[..., None])
        bricks = rng.uniform(-1, 1, (height // 6 + 1, width // 9 + 1))
        blocks = bricks[np.arange(height) // 6][:, np.arange(width) // 9]
        scene = scene + 26 * look.texture * blocks[..., None] * (1 - low)
    return np.clip(scene, 0, 255).astype(np.float32)
