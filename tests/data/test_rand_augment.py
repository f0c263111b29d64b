import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vidloc.data import rand_augment

STATISTICS = ('auto_contrast', 'equalize', 'contrast')


def picture(height=40, width=48, seed=0, low=30, high=200):
    """Smooth noise, [H, W, 3] uint8, of few extremes."""
    rough = np.random.default_rng(seed).integers(low, high, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BILINEAR))


def clip(frames=3):
    return np.stack([picture(seed=seed) for seed in range(frames)])


@pytest.mark.parametrize('name', rand_augment.OPERATIONS)
@pytest.mark.parametrize('magnitude', [0.0, 8.0, 20.0, 30.0])
def test_a_still_stays_still(name, magnitude):
    still = np.repeat(picture()[None], 4, axis=0)
    before = still.copy()
    out = rand_augment.apply(still, name, magnitude, (0.2, 0.7))
    assert out.dtype == np.uint8 and out.shape == still.shape
    assert (out == out[:1]).all()
    np.testing.assert_array_equal(still, before)


@pytest.mark.parametrize('name', [name for name in rand_augment.OPERATIONS if name not in STATISTICS])
def test_each_frame_is_changed_as_it_would_be_alone(name):
    frames = clip()
    out = rand_augment.apply(frames, name, 9.0, (0.4, 0.4))
    alone = [rand_augment.apply(frame[None], name, 9.0, (0.4, 0.4))[0] for frame in frames]
    np.testing.assert_array_equal(out, np.stack(alone))


@pytest.mark.parametrize('name', STATISTICS)
def test_equal_pixels_of_different_frames_stay_equal(name):
    frames = clip()
    frames[1] = np.minimum(frames[1] // 2 + 100, 255)
    frames[1, :20], frames[2, :20] = frames[0, :20], frames[0, :20]
    out = rand_augment.apply(frames, name, 12.0)
    np.testing.assert_array_equal(out[1, :20], out[0, :20])
    np.testing.assert_array_equal(out[2, :20], out[0, :20])
    alone = rand_augment.apply(frames[1:2], name, 12.0)
    assert np.any(alone[0, :20] != out[1, :20])


@pytest.mark.parametrize(
    ('name', 'theirs'),
    [
        ('auto_contrast', ImageOps.autocontrast),
        ('equalize', ImageOps.equalize),
        ('invert', ImageOps.invert),
        ('posterize', lambda image: ImageOps.posterize(image, 3)),
        ('solarize', lambda image: ImageOps.solarize(image, 230)),
        ('color', lambda image: ImageEnhance.Color(image).enhance(1.72)),
        ('contrast', lambda image: ImageEnhance.Contrast(image).enhance(1.72)),
        ('brightness', lambda image: ImageEnhance.Brightness(image).enhance(1.72)),
        ('sharpness', lambda image: ImageEnhance.Sharpness(image).enhance(1.72)),
    ],
)
def test_one_frame_is_what_pillow_makes_of_it(name, theirs):
    frame = picture(high=250)
    out = rand_augment.apply(frame[None], name, 9.0)[0]
    np.testing.assert_array_equal(out, np.asarray(theirs(Image.fromarray(frame))))
    assert np.any(out != frame)


def test_dark_pixels_are_lightened_and_bright_ones_kept():
    frames = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(3, axis=3)
    out = rand_augment.apply(frames, 'solarize_add', 10.0)[0, 0, :, 0]
    np.testing.assert_array_equal(out[:128], np.minimum(np.arange(128) + 110, 255))
    np.testing.assert_array_equal(out[128:], np.arange(128, 256))


def test_a_cutout_is_grey_and_grows_with_the_input():
    out = rand_augment.apply(np.zeros((2, 224, 300, 3), np.uint8), 'cutout', 10.0, (0.5, 0.5))
    grey = (out == 128).all(axis=-1)
    np.testing.assert_array_equal(np.flatnonzero(grey[1].any(axis=1)), np.arange(72, 152))
    np.testing.assert_array_equal(np.flatnonzero(grey[0].any(axis=0)), np.arange(110, 190))
    assert not out[~grey].any() and grey.sum() == 2 * 80 * 80
    corner = rand_augment.apply(np.zeros((1, 448, 448, 3), np.uint8), 'cutout', 5.0, (0.0, 0.999))
    assert corner.any(axis=-1).sum() == 40 * 41


@pytest.mark.parametrize(
    ('name', 'magnitude'),
    [
        ('solarize_add', 0.0),
        ('cutout', 0.0),
        ('color', 5.0),
        ('contrast', 5.0),
        ('brightness', 5.0),
        ('sharpness', 5.0),
        ('solarize', 10.0),
        ('solarize', 20.0),
        ('posterize', 20.0),
        ('posterize', 30.0),
        ('identity', 30.0),
    ],
)
def test_where_the_public_scale_changes_nothing(name, magnitude):
    frames = clip()
    np.testing.assert_array_equal(rand_augment.apply(frames, name, magnitude), frames)


def test_a_seed_decides_everything():
    frames = clip()

    def draw(seed, layers=2):
        return rand_augment.rand_augment(frames, layers, 9.0, np.random.default_rng(seed))

    np.testing.assert_array_equal(draw(1), draw(1))
    assert len({draw(seed).tobytes() for seed in range(30)}) > 20
    assert draw(3, layers=0) is frames


def test_every_operation_is_drawn_about_as_often():
    frames = picture(high=250)[None]
    made = {rand_augment.apply(frames, name, 9.0).tobytes(): name for name in rand_augment.OPERATIONS}
    assert len(made) == len(rand_augment.OPERATIONS)
    counts = dict.fromkeys(rand_augment.OPERATIONS, 0)
    for seed in range(600):
        out = rand_augment.rand_augment(frames, 1, 9.0, np.random.default_rng(seed))
        counts[made.get(out.tobytes(), 'cutout')] += 1  # a cutout is hardly ever in the middle
    assert min(counts.values()) > 25 and max(counts.values()) < 80


def test_each_layer_takes_the_same_draws_whatever_it_does():
    after = []
    for seed in range(20):
        rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
        rand_augment.rand_augment(clip(1), 2, 9.0, rng)
        for _ in range(2):
            other.integers(len(rand_augment.OPERATIONS))
            other.random(2)
        after.append(rng.random() == other.random())
    assert all(after)
