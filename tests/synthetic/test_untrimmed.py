import collections
import itertools

import numpy as np
import pytest

from vidloc.synthetic import collection, script, untrimmed

STAGE = collection.SIZES['small'].long


@pytest.fixture(scope='module')
def scripts():
    """(people, steps, segments) of many people who are alone, and of many pairs."""
    drawn = []
    for seed in range(150):
        for people in (1, 2):
            others = []
            for person in range(people):
                rng = np.random.default_rng([seed, people, person])
                steps, segments = untrimmed.draw_script(50.0, people, others, rng)
                others = others + segments
                drawn.append((people, steps, segments))
    return drawn


def test_steps_follow_each_other_and_fill_the_video(scripts):
    for _, steps, _ in scripts:
        assert steps[0].start == 0.0 and steps[-1].end > 50.0
        for one, following in itertools.pairwise(steps):
            assert one.end == pytest.approx(following.start, abs=1e-9)


def test_segments_are_the_times_in_which_a_step_says_so(scripts):
    for _, steps, segments in scripts:
        for time in np.linspace(0.01, 49.99, 97):
            now = {each.label for each in segments if each.start <= time <= each.end}
            said = set(script.labels_at(steps, float(time))) - {'stand', 'walk'}
            edge = any(abs(time - moment) < 1e-3 for each in segments for moment in (each.start, each.end))
            assert edge or now == said


def test_actions_last_one_to_six_seconds_with_pauses_between_and_room_at_the_ends(scripts):
    lengths = [each.end - each.start for _, _, segments in scripts for each in segments]
    # A take is done as many whole times as come nearest.
    assert min(lengths) >= 0.99 and max(lengths) <= untrimmed.SECONDS[1] + 1.0
    assert np.quantile(lengths, 0.25) < 2.0 and np.quantile(lengths, 0.75) > 3.5
    for _, _, segments in scripts:
        assert segments[0].start >= untrimmed.EDGE and segments[-1].end <= 50.0 - untrimmed.EDGE
        for one, following in itertools.pairwise(segments):
            assert following.start - one.end >= 0.5


def test_some_classes_are_rare_and_classes_come_again_in_a_video(scripts):
    counts = collections.Counter(each.label for _, _, segments in scripts for each in segments)
    assert set(counts) == set(untrimmed.CLASSES) and counts['cartwheel'] < 0.3 * counts['wave']
    again = [max(collections.Counter(each.label for each in segments).values()) for _, _, segments in scripts]
    assert np.mean(np.array(again) >= 2) > 0.7


def test_pairs_act_at_once_but_never_do_the_same(scripts):
    pairs = [segments for people, _, segments in scripts if people == 2]
    overlaps = same = 0
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        for a, b in itertools.product(one, other):
            both = a.start < b.end and b.start < a.end
            overlaps += both
            same += both and a.label == b.label
    assert overlaps > len(pairs) and same == 0


def test_background_is_a_third_to_a_half_of_the_time():
    shares = []
    for number in range(30):
        video = untrimmed.draw('v', untrimmed.Stage(8, 8, 2, STAGE.seconds, STAGE.look), np.random.SeedSequence(number))
        times = np.arange(0.0, video.truth.duration, 0.1)
        acting = np.zeros(len(times), bool)
        for each in video.truth.segments:
            acting |= (times >= each.start) & (times < each.end)
        shares.append(1 - acting.mean())
    assert 0.3 < np.mean(shares) < 0.52


def test_people_are_large_and_stay_in_view():
    for number in range(12):
        video = untrimmed.draw('v', untrimmed.Stage(48, 64, 8, (6, 8), 'plain'), np.random.SeedSequence([number, 1]))
        assert video.frames.shape[1:] == (48, 64, 3) and len(video.frames) == video.truth.duration * 8
        for person in range(1, video.ids.max() + 1):
            seen = (video.ids == person).sum(axis=(1, 2))
            # Standing they are 30 to 36 rows high.
            assert np.median(seen) > 80 and seen.min() > 20


def test_actions_move_more_than_what_is_between():
    moved = {True: [], False: []}
    for number in range(12):
        video = untrimmed.draw('v', untrimmed.Stage(48, 64, 8, (12, 12), 'plain'), np.random.SeedSequence([number, 2]))
        change = np.abs(np.diff(video.frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
        times = (np.arange(len(change)) + 0.5) / 8
        acting = np.zeros(len(change), bool)
        for each in video.truth.segments:
            if each.label in ('punch', 'kick', 'jump', 'dance', 'cartwheel', 'squat'):
                acting |= (times >= each.start) & (times < each.end)
        moved[True] += change[acting].tolist()
        moved[False] += change[~acting].tolist()
    assert np.mean(moved[True]) > 1.5 * np.mean(moved[False])
