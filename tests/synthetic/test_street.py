import numpy as np
import pytest

from vidloc.synthetic import collection, render, street

STAGE = collection.SIZES['small'].street


@pytest.fixture(scope='module')
def videos():
    return [street.draw(f'v{i}', STAGE, collection.stream(7, 'street', 'train', i)) for i in range(25)]


def test_shapes_keyframes_and_duration(videos):
    for video in videos:
        assert video.frames.shape == (32, 64, 96, 3) and video.frames.dtype == np.uint8
        assert video.truth.keyframes == (1.0, 2.0, 3.0) and video.truth.duration == 4.0


def test_room_for_a_clip_of_a_second_around_every_keyframe():
    for size in collection.SIZES.values():
        stage = size.street
        assert min(stage.keyframes) >= 0.5 and max(stage.keyframes) <= stage.seconds - 0.5
        assert all(time == int(time) for time in stage.keyframes)


def test_boxes_are_the_extents_of_visible_pixels(videos):
    for video in videos:
        for person in video.truth.boxes:
            exact, _ = render.boxes(video.ids[round(person.time * STAGE.fps)], 4)
            np.testing.assert_allclose(person.box, exact[int(person.track)], atol=1e-6)


def test_one_to_four_people_and_at_most_one_box_each(videos):
    counts = {int(video.ids.max()) for video in videos}
    assert counts <= {1, 2, 3, 4} and len(counts) > 2
    for video in videos:
        keys = [(person.time, person.track) for person in video.truth.boxes]
        assert len(keys) == len(set(keys))


def test_people_have_the_size_that_patches_need(videos):
    standing = [
        (person.box[3] - person.box[1]) * STAGE.height
        for video in videos
        for person in video.truth.boxes
        if person.labels in (('stand',), ('walk',))
    ]
    assert np.quantile(standing, 0.1) > 28 and np.quantile(standing, 0.9) < 50


def test_most_people_stay_in_view(videos):
    people = sum(len(np.unique(video.ids[8])) - 1 for video in videos)
    boxes = sum(person.time == 1.0 for video in videos for person in video.truth.boxes)
    assert boxes >= 0.85 * people


def test_segments_lie_in_the_video_and_cover_the_labels(videos):
    for video in videos:
        for segment in video.truth.segments:
            assert 0 <= segment.start < segment.end <= 4.0 and segment.label != street.BETWEEN
        for person in video.truth.boxes:
            for label in set(person.labels) - {street.BETWEEN}:
                assert any(
                    segment.label == label and segment.start - 0.1 <= person.time <= segment.end + 0.1
                    for segment in video.truth.segments
                )


def test_hard_look_renders_textured_moving_noisy_video():
    stage = street.Stage(64, 96, 8, 2, 'hard')
    video = street.draw('v', stage, np.random.SeedSequence(3))
    plain = street.draw('v', street.Stage(64, 96, 8, 2, 'plain'), np.random.SeedSequence(3))
    corner = (slice(None), slice(0, 12), slice(0, 12))
    assert video.frames[corner].std() > 2 * plain.frames[corner].std()
    assert np.any(video.frames[0, :12, :12] != video.frames[-1, :12, :12])
