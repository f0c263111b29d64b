import numpy as np
import pytest

from vidloc.data import transforms
from vidloc.ops import boxes as box_ops


def painted(height: int, width: int, box: np.ndarray) -> np.ndarray:
    """[2, H, W, 3]: grey with a red rectangle at `box`, whose sides lie on pixel borders."""
    frames = np.full((2, height, width, 3), 90, np.uint8)
    left, top, right, bottom = np.rint(box * [width, height, width, height]).astype(int)
    frames[:, top:bottom, left:right] = (255, 0, 0)
    return frames


def red_box(frame: np.ndarray) -> np.ndarray:
    """The box in [0,1] around what is red in [H, W, 3]."""
    red = (frame[..., 0] > 150) & (frame[..., 1] < 50)
    across, down = np.flatnonzero(red.any(0)), np.flatnonzero(red.any(1))
    height, width = red.shape
    return np.array([across[0] / width, down[0] / height, (across[-1] + 1) / width, (down[-1] + 1) / height])


@pytest.mark.parametrize('seed', range(40))
def test_boxes_go_where_the_picture_goes(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(40, 150, 2))
    size = tuple(int(side) for side in rng.integers(32, 120, 2))
    corners = np.sort(rng.choice(np.arange(1, 10), (2, 2), replace=False).reshape(2, 2), axis=0) / 10
    pixels = np.rint(corners * [width, height]) / [width, height]
    box = np.array([*pixels[0], *np.maximum(pixels[1], pixels[0] + [8 / width, 8 / height])])
    box = np.minimum(np.rint(box * [width, height, width, height]) / [width, height, width, height], 1)
    frames, placement = transforms.fit(
        painted(height, width, box), size, scale=rng.uniform(0.65, 1.1), anchor=tuple(rng.random(2))
    )
    if rng.random() < 0.5:
        frames, placement = transforms.flip(frames, placement)
    assert frames.shape == (2, *size, 3) and frames.dtype == np.uint8
    expected = placement.apply(box[None])
    np.testing.assert_allclose(placement.invert(expected), box[None], atol=1e-12)
    seen = box_ops.clip(expected)[0] * [size[1], size[0], size[1], size[0]]
    if (seen[2:] - seen[:2] >= 3).all():
        found = red_box(frames[1]) * [size[1], size[0], size[1], size[0]]
        np.testing.assert_allclose(found, seen, atol=1.0)


def test_the_longer_side_fills_the_input_and_zeros_the_rest():
    frames = np.full((1, 60, 80, 3), 200, np.uint8)
    out, placement = transforms.fit(frames, (32, 32))
    assert (out[0, 4:28] == 200).all() and not out[0, :4].any() and not out[0, 28:].any()
    assert placement == transforms.Placement(1.0, 0.75, 0.0, 0.125)
    # Longer is meant relative to the input: here the height decides.
    out, placement = transforms.fit(frames, (30, 80), anchor=(1.0, 0.5))
    assert (out[0, :, 40:] == 200).all() and not out[0, :, :40].any()
    assert placement == transforms.Placement(0.5, 1.0, 0.5, 0.0)


def test_a_larger_scale_crops_where_the_anchor_says():
    frames = np.zeros((1, 100, 100, 3), np.uint8)
    frames[:, :, 50:] = 255
    left, placement = transforms.fit(frames, (50, 50), scale=2.0, anchor=(0.0, 0.5))
    right, _ = transforms.fit(frames, (50, 50), scale=2.0, anchor=(1.0, 0.5))
    # All the source is at its own size: cut out, not resampled.
    assert not left.any() and (right == 255).all()
    assert placement == transforms.Placement(2.0, 2.0, 0.0, -0.5)


def test_cropping_resamples_as_resizing_and_cutting_would():
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    whole, _ = transforms.fit(frames, (44, 66), scale=1.0)
    part, _ = transforms.fit(frames, (40, 60), scale=1.1, anchor=(0.0, 0.0))
    assert np.abs(part.astype(int) - whole[:, :40, :60]).max() <= 2


def test_shrinking_does_not_alias():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    out, _ = transforms.fit(stripes, (16, 16))
    assert np.abs(out.astype(int) - 127).max() <= 16


def test_nothing_to_do_copies_nothing():
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    out, placement = transforms.fit(frames, (48, 48))
    assert out is frames and placement == transforms.Placement()


def test_flip_is_its_own_inverse():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    start = transforms.Placement(0.7, 0.8, 0.1, 0.05)
    once, placement = transforms.flip(frames, start)
    box = np.array([[0.2, 0.1, 0.4, 0.6]])
    np.testing.assert_allclose(placement.apply(box), box_ops.mirror(start.apply(box)))
    again, back = transforms.flip(once, placement)
    np.testing.assert_array_equal(again, frames)
    np.testing.assert_allclose(back.apply(box), start.apply(box))


def test_placement_keeps_float_types_and_takes_none():
    placement = transforms.Placement(0.5, 0.5, 0.25, 0.25)
    assert placement.apply(np.zeros((0, 4), np.float32)).shape == (0, 4)
    assert placement.apply(np.zeros((1, 4), np.float32)).dtype == np.float32
    np.testing.assert_array_equal(placement.apply([[0, 0, 1, 1]]), [[0.25, 0.25, 0.75, 0.75]])


@pytest.mark.parametrize(
    'wrong',
    [{'size': (0, 4)}, {'scale': 0.0}, {'scale': np.inf}, {'scale': np.nan}, {'anchor': (0.5, 1.2)}],
)
def test_fit_refuses_what_is_out_of_range(wrong):
    with pytest.raises(ValueError, match='must be positive, anchor'):
        transforms.fit(np.zeros((1, 4, 4, 3), np.uint8), **({'size': (4, 4)} | wrong))


@pytest.mark.parametrize('frames', [np.zeros((1, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8)])
def test_fit_refuses_what_is_not_a_clip(frames):
    with pytest.raises(ValueError, match='must be uint8'):
        transforms.fit(frames, (4, 4))


def test_clip_times_have_the_keyframe_at_the_middle():
    times = transforms.clip_times(902.0, 32, 15.0)
    assert times.dtype == np.float64 and times[16] == 902.0
    np.testing.assert_allclose(times, 902 + np.arange(-32, 32, 2) / 30)
    np.testing.assert_allclose(transforms.clip_times(1.0, 1, 8.0), [1.0])
    for frames, rate in ((0, 8.0), (4, 0.0), (4, np.nan)):
        with pytest.raises(ValueError, match='both must be positive'):
            transforms.clip_times(1.0, frames, rate)


def test_jitter_moves_each_side_by_at_most_its_share():
    boxes = np.tile([[0.2, 0.3, 0.6, 0.5]], (2000, 1)).astype(np.float32)
    moved = transforms.jitter_boxes(boxes, 0.15, np.random.default_rng(0))
    shift = (moved - boxes) / [0.4, 0.2, 0.4, 0.2]
    assert moved.dtype == np.float32
    assert np.abs(shift).max() <= 0.15 + 1e-6
    np.testing.assert_allclose(shift.std(0), 0.15 / np.sqrt(3), rtol=0.05)
    assert np.abs(np.corrcoef(shift.T) - np.eye(4)).max() < 0.1
    np.testing.assert_array_equal(transforms.jitter_boxes(boxes, 0.0, np.random.default_rng(0)), boxes)
    for ratio in (-0.1, 0.5):
        with pytest.raises(ValueError, match='box jitter'):
            transforms.jitter_boxes(boxes, ratio, np.random.default_rng(0))


def test_visible_goes_by_the_share_inside():
    boxes = np.array(
        [
            [0.1, 0.1, 0.2, 0.2],
            [-0.3, 0.0, 0.1, 1.0],
            [-0.9, 0.0, 0.1, 1.0],
            [1.0, 0.0, 1.5, 1.0],
            [0.5, 0.5, 0.5, 0.9],
        ]
    )
    np.testing.assert_array_equal(transforms.visible(boxes), [True, True, False, False, False])
    np.testing.assert_array_equal(transforms.visible(boxes, 0.0), [True, True, True, False, False])
    np.testing.assert_array_equal(transforms.visible(boxes, 1.0), [True, False, False, False, False])


def test_covering_fills_the_input_with_the_shorter_side():
    frames = np.full((1, 60, 80, 3), 200, np.uint8)
    frames[:, :, :10] = 100
    out, placement = transforms.fit(frames, (30, 30), cover=True, anchor=(0.0, 0.5))
    assert (out[0, :, 6:] == 200).all() and (out[0, :, :4] == 100).all()
    assert placement == transforms.Placement(40 / 30, 1.0, 0.0, 0.0)
    _, placement = transforms.fit(frames, (30, 30), cover=True, scale=256 / 224)
    np.testing.assert_allclose([placement.scale_x, placement.scale_y], [46 / 30, 34 / 30])
    # Shorter is meant relative to the input: here the width decides.
    out, placement = transforms.fit(frames, (20, 80), cover=True)
    assert out.all() and placement == transforms.Placement(1.0, 3.0, 0.0, -1.0)


@pytest.mark.parametrize('seed', range(20))
def test_covering_leaves_no_zeros_anywhere(seed):
    rng = np.random.default_rng(seed)
    height, width, *size = (int(side) for side in rng.integers(20, 150, 4))
    scale, anchor = rng.uniform(1.0, 1.5), tuple(rng.random(2))
    box = np.array([[0.3, 0.2, 0.7, 0.8]])
    out, placement = transforms.fit(
        np.full((1, height, width, 3), 255, np.uint8), tuple(size), scale=scale, anchor=anchor, cover=True
    )
    assert (out == 255).all()
    whole = placement.apply(np.array([[0.0, 0.0, 1.0, 1.0]]))[0]
    assert (whole[:2] <= 1e-9).all() and (whole[2:] >= 1 - 1e-9).all()
    np.testing.assert_allclose(placement.invert(placement.apply(box)), box, atol=1e-12)


def test_test_crops_lie_evenly_along_the_longer_side():
    wide, high, square = (48, 64), (64, 48), (50, 50)
    assert [transforms.view_anchor(wide, (30, 30), i, 3) for i in range(3)] == [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]
    assert [transforms.view_anchor(high, (30, 30), i, 3) for i in range(3)] == [(0.5, 0.0), (0.5, 0.5), (0.5, 1.0)]
    assert transforms.view_anchor(square, (30, 30), 0, 3) == (0.0, 0.5)
    assert transforms.view_anchor(wide, (30, 30), 0, 1) == (0.5, 0.5)
    # Longer is meant relative to the input.
    assert transforms.view_anchor(wide, (30, 80), 1, 2) == (0.5, 1.0)


@pytest.mark.parametrize('seed', range(10))
def test_a_random_part_has_the_area_and_the_sides_it_may_have(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(60, 300, 2))
    parts = set()
    for _ in range(40):
        draws = rng.random((transforms.CROP_TRIES, 4))
        left, top, right, bottom = transforms.random_part((height, width), (0.08, 0.5), (3 / 4, 4 / 3), draws)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        wide, tall = right - left, bottom - top
        assert 0.07 < wide * tall / (height * width) < 0.53
        assert 3 / 4 * 0.9 < wide / tall < 4 / 3 * 1.1
        parts.add((left, top, right, bottom))
    assert len(parts) > 30


def test_a_part_that_never_fits_is_the_largest_in_the_middle():
    draws = np.full((transforms.CROP_TRIES, 4), 0.5)
    whole = ((1.0, 1.0), (0.75, 4 / 3), draws)
    assert transforms.random_part((100, 300), *whole) == (83, 0, 216, 100)
    assert transforms.random_part((300, 100), *whole) == (0, 83, 100, 216)
    assert transforms.random_part((100, 120), (1.0, 1.0), (1.2, 1.2), draws) == (0, 0, 120, 100)


def test_a_part_fills_the_input():
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[10:30, 20:50] = (255, 0, 0)
    assert (transforms.resized_part(frame, (20, 10, 50, 30), (16, 16)) == (255, 0, 0)).all()
    same = transforms.resized_part(frame, (20, 10, 36, 26), (16, 16))
    np.testing.assert_array_equal(same, frame[10:26, 20:36])
    half = transforms.resized_part(frame, (5, 10, 35, 30), (10, 30))
    assert (half[:, 17:, 0] == 255).all() and (half[:, :13] == 0).all()
