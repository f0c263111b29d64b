import numpy as np
import pytest
from PIL import ImageFont

from vidloc.report import draw

GREY = np.full((64, 96, 3), 120, np.uint8)
BOX = (0.3, 0.3, 0.5, 0.7)


def near(picture, colour):
    """[H, W] bool: pixels of exactly this colour."""
    return (picture == np.asarray(colour, np.uint8)).all(-1)


def test_the_nearest_keyframe_is_drawn_and_the_earlier_one_at_a_tie():
    keyframes = [draw.Keyframe(1.0), draw.Keyframe(2.0), draw.Keyframe(3.0)]
    assert [draw.nearest(keyframes, t).time for t in (0.0, 1.4, 1.5, 1.6, 9.0)] == [1.0, 1.0, 1.0, 2.0, 3.0]


def test_spans_meet_half_way_between_keyframes():
    assert draw.spans([1.0, 2.0, 4.0], 5.0) == [(0.0, 1.5), (1.5, 3.0), (3.0, 5.0)]
    assert draw.spans([1.0], 5.0) == [(0.0, 5.0)]


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((96, 64), (576, 384)),
        ((64, 96), (384, 576)),
        ((640, 480), (640, 480)),
        ((1920, 1080), (640, 360)),
        ((5, 3), (640, 384)),
    ],
)
def test_small_frames_grow_by_a_whole_factor_and_large_ones_shrink(size, expected):
    assert draw.canvas_size(*size) == expected


def test_truth_is_a_solid_line_with_its_label_below_and_prediction_a_dashed_one_with_its_label_above():
    truth = draw.draw_frame(GREY, draw.Keyframe(0.0, truth=(draw.Person(BOX, (('walk', None),)),)), time=0.0)
    guess = draw.draw_frame(GREY, draw.Keyframe(0.0, predicted=(draw.Person(BOX, (('walk', 0.5),)),)), time=0.0)
    strip = truth.shape[0] - 384
    picture, other = truth[strip:], guess[strip:]
    top, bottom, left, right = (round(v) for v in (0.3 * 384, 0.7 * 384, 0.3 * 576, 0.5 * 576))
    white = near(picture, draw.TRUTH_COLOUR)
    assert white[top : bottom + 1, left].all()
    assert white[bottom + 6 : bottom + 26, left:right].sum() > 300
    assert not white[: top - 4].any()
    orange = near(other, draw.PREDICTED_COLOUR)
    outside = np.flatnonzero(orange[top:bottom].any(0)).min()
    assert outside < left
    share = orange[top:bottom, outside + 1].mean()
    assert 0.3 < share < 0.75
    assert orange[: top - 8].sum() > 300
    assert not orange[bottom + 16 :].any()


def test_frames_have_even_sides_and_the_strip_names_both_times():
    shapes = {
        draw.draw_frame(np.zeros((h, w, 3), np.uint8), draw.Keyframe(1.0), time=0.5).shape
        for h, w in ((63, 97), (200, 31))
    }
    assert all(height % 2 == 0 and width % 2 == 0 for height, width, _ in shapes)
    early, late = (draw.draw_frame(GREY, draw.Keyframe(1.0), time=t) for t in (0.5, 0.75))
    assert (early != late).any() and (early[-384:] == late[-384:]).all()


@pytest.mark.parametrize(
    'box', [(-0.5, -0.5, 1.5, 1.5), (0.99, 0.99, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0), (1.2, 1.2, 1.4, 1.4)]
)
def test_boxes_at_or_beyond_the_edge_are_drawn_within_the_picture(box):
    person = draw.Person(box, (('a very long label ' * 9, 0.5), ('\x1b[31mred\n', 0.4)))
    frame = draw.draw_frame(GREY, draw.Keyframe(0.0, (person,), (person,)), time=0.0)
    assert near(frame[-384:], draw.PREDICTED_COLOUR).any()


def test_labels_of_people_at_one_place_do_not_cover_each_other():
    people = tuple(draw.Person(BOX, ((name, 0.5),)) for name in ('walk', 'wave', 'kick'))
    one = draw.draw_frame(GREY, draw.Keyframe(0.0, predicted=people[:1]), time=0.0)
    three = draw.draw_frame(GREY, draw.Keyframe(0.0, predicted=people), time=0.0)
    assert near(three, draw.PREDICTED_COLOUR).sum() > 2 * near(one, draw.PREDICTED_COLOUR).sum()


def test_long_names_are_cut_with_an_ellipsis_and_control_characters_go():
    font = ImageFont.load_default(18)
    assert draw.shortened('walk', font, 200) == 'walk'
    cut = draw.shortened('carry/hold (an object)', font, 90)
    assert cut.endswith('…') and font.getlength(cut) <= 90
    assert draw.shortened('a\nb\x1b', font, 200) == 'a b '


def test_annotate_draws_each_frame_with_its_own_time():
    frames = np.stack([GREY] * 3)
    keyframes = [draw.Keyframe(0.0, (draw.Person(BOX),)), draw.Keyframe(2.0)]
    drawn = list(draw.annotate(frames, [0.0, 1.0, 2.0], keyframes))
    assert [near(frame[-384:], draw.TRUTH_COLOUR).any() for frame in drawn] == [True, True, False]
