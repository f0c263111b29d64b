import numpy as np
import pytest

from vidloc.synthetic import looks, motions, render, skeleton
from vidloc.synthetic.camera import Camera


def _scene(frames=6, look='plain', turn=0.0, seed=0):
    rng = np.random.default_rng(seed)
    chosen = looks.LOOKS[look]
    camera = Camera(72, 96, 110.0, 26.0, 1.3, np.linspace(-turn, turn, frames))
    backdrop = looks.backdrop(chosen, 72, 96 + (40 if turn else 0), 26.0, rng)
    return rng, chosen, camera, backdrop, looks.light_direction(chosen, rng)


def _figure(rng, look, x, z, frames=6, clip='walk'):
    pose = motions.load()[clip].play(np.arange(frames) / 8)
    return render.Figure(skeleton.capsule_ends(pose) + np.array([x, 0, z]), 1.0, looks.dress(look, rng))


def test_boxes_are_the_extents_of_the_id_map():
    ids = np.zeros((10, 20), np.uint8)
    ids[2:5, 4:9] = 1
    ids[3, 15] = 3
    boxes, visible = render.boxes(ids, 3)
    np.testing.assert_allclose(boxes, [[4 / 20, 2 / 10, 9 / 20, 5 / 10], [0] * 4, [15 / 20, 0.3, 16 / 20, 0.4]])
    np.testing.assert_array_equal(visible, [15, 0, 1])


def test_a_single_capsule_covers_its_outline():
    rng, look, camera, backdrop, light = _scene(frames=1)
    figure = _figure(rng, look, 0.0, -4.5, frames=1, clip='getup_faceup')
    ids = render.render([figure], camera, look, backdrop, light).ids[0]
    columns, rows, depth = camera.project(figure.ends)
    radius = camera.focal * skeleton.RADII[None, :, None] / depth
    box = render.boxes(ids, 1)[0][0] * [96, 72, 96, 72]
    exact = [(columns - radius).min(), (rows - radius).min(), (columns + radius).max(), (rows + radius).max()]
    # Pixels count by their centres, so the box is within a pixel of the outline.
    np.testing.assert_allclose(box, exact, atol=1.0)


def test_who_is_nearer_hides_who_is_farther_whatever_the_order():
    rng, look, camera, backdrop, light = _scene()
    near, far = _figure(rng, look, 0.0, -3.6), _figure(rng, look, 0.0, -6.0)
    ids = render.render([near, far], camera, look, backdrop, light).ids
    swapped = render.render([far, near], camera, look, backdrop, light).ids
    alone = render.render([near], camera, look, backdrop, light).ids
    np.testing.assert_array_equal(ids == 1, alone == 1)
    np.testing.assert_array_equal(ids == 1, swapped == 2)
    assert (ids == 2).sum() < 0.7 * (render.render([far], camera, look, backdrop, light).ids == 1).sum()


def test_frames_do_not_depend_on_how_many_are_drawn_together(monkeypatch):
    rng, look, camera, backdrop, light = _scene()
    figures = [_figure(rng, look, x, -4.5) for x in (-1.0, 0.0, 0.7)]
    whole = render.render(figures, camera, look, backdrop, light)
    monkeypatch.setattr(render, 'PASS', 1)
    single = render.render(figures, camera, look, backdrop, light)
    np.testing.assert_array_equal(whole.frames, single.frames)
    np.testing.assert_array_equal(whole.ids, single.ids)


def test_people_outside_the_frame_leave_the_backdrop():
    rng, look, camera, backdrop, light = _scene()
    drawn = render.render([_figure(rng, look, 50.0, -4.5)], camera, look, backdrop, light)
    assert not drawn.ids.any()
    np.testing.assert_array_equal(drawn.frames[0], np.rint(backdrop).astype(np.uint8))


def test_pillars_hide_people_and_have_no_id():
    rng, look, camera, backdrop, light = _scene()
    figure = _figure(rng, look, 0.0, -4.5)
    pillar = render.Pillar(0.0, -2.5, 0.4, 3.5, np.array([90, 80, 70], np.float32))
    free = render.render([figure], camera, look, backdrop, light)
    hidden = render.render([figure], camera, look, backdrop, light, pillars=[pillar])
    assert hidden.ids.max() <= 1
    assert (hidden.ids == 1).sum() < 0.3 * (free.ids == 1).sum()


def test_turning_camera_moves_wall_and_people_together():
    rng, look, camera, backdrop, light = _scene(look='hard', turn=0.12)
    drawn = render.render([_figure(rng, look, 0.0, -4.5)], camera, look, backdrop, light, noise=rng)
    centres = [np.flatnonzero((frame == 1).any(axis=0)).mean() for frame in drawn.ids[[0, -1]]]
    # Turning right moves the picture left: by focal * tan(angle) on either side of the middle.
    walked = 110.0 * 1.0 * (5 / 8) / 4.5
    assert centres[0] - centres[1] == pytest.approx(2 * 110 * np.tan(0.12) - walked, abs=4.0)
    early, late = drawn.frames[[0, -1], :14].astype(float).mean(axis=3)
    shift = round(2 * 110 * np.tan(0.12))
    same = np.corrcoef(early[:, shift:].ravel(), late[:, :-shift].ravel())[0, 1]
    assert same > 0.8
