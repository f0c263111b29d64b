import numpy as np
from PIL import Image

from vidloc.report import timeline_picture
from vidloc.report.timelines import Lane, Piece, Timeline


def shown(**change):
    lane = Lane('swing', (Piece(20.0, 40.0),), (Piece(20.0, 40.0, 0.9, True), Piece(60.0, 80.0, 0.9, False)))
    given = {'video': 'v', 'place': 'best', 'ap': 1.0, 'other_ap': None, 'seconds': 100.0, 'lanes': (lane,)}
    return Timeline(**(given | change))


def share(picture, colour):
    """(columns, rows) that have a pixel of the colour, as (first, last)."""
    rows, across = np.nonzero((np.asarray(picture) == colour).all(axis=2))
    return (int(across.min()), int(across.max())), (int(rows.min()), int(rows.max()))


def test_truth_and_predictions_are_drawn_in_time_and_wrong_ones_half_as_high(tmp_path):
    timeline_picture.write_picture(tmp_path / 'a.png', shown())
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']
    picture = Image.open(tmp_path / 'a.png')
    assert picture.width == timeline_picture.WIDTH
    body = picture.crop((timeline_picture._NAME, 150, picture.width, picture.height))
    left, width = timeline_picture._EDGE, picture.width - timeline_picture._NAME - 2 * timeline_picture._EDGE
    (x1, x2), (top, bottom) = share(body, timeline_picture._INK)
    assert abs(x1 - left - 0.2 * width) <= 1 and abs(x2 - left - 0.4 * width) <= 1
    (y1, y2), (z1, z2) = (share(body, colour)[1] for colour in (timeline_picture._RIGHT, timeline_picture._WRONG))
    assert bottom < y1 and y2 - y1 == bottom - top and 0.3 < (z2 - z1) / (y2 - y1) < 0.55


def test_a_second_run_makes_room_and_long_names_are_cut():
    one, two = (
        timeline_picture.picture(shown()),
        timeline_picture.picture(shown(video='v' * 500), names=('a', 'b' * 300)),
    )
    assert two.height > one.height and two.width == one.width
    assert timeline_picture.picture(shown(lanes=())).height > 100
