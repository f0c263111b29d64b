import json

import numpy as np
import pytest

from vidloc.metrics import temporal
from vidloc.report import run, timelines


def columns(rows, scores=False):
    names = ('video', 'start', 'end', 'label', *(['score'] if scores else []))
    kinds = (object, np.float64, np.float64, np.int64, np.float64)
    return {name: np.array([row[i] for row in rows], kinds[i]) for i, name in enumerate(names)}


def test_videos_at_even_places_of_the_ranking_are_chosen():
    ranked = {f'v{i:02d}': 1 - i / 20 for i in range(9)}
    assert timelines.chosen(ranked) == [
        ('best', 'v00'),
        ('upper quarter', 'v02'),
        ('median', 'v04'),
        ('lower quarter', 'v06'),
        ('worst', 'v08'),
    ]
    assert timelines.chosen({'b': 0.5, 'a': 0.5, 'c': None}) == [('1 of 3', 'a'), ('2 of 3', 'b'), ('3 of 3', 'c')]
    assert timelines.chosen({}) == []


def test_videos_are_ranked_over_all_their_classes_in_one_ranking():
    truth = columns([('a', 0, 4, 0), ('a', 6, 9, 1), ('b', 0, 4, 0), ('c', 0, 4, 1)])
    found = columns(
        [
            ('a', 0, 4, 0, 0.9), ('a', 6, 9, 1, 0.2),
            ('b', 0, 4, 1, 0.9), ('b', 0, 4, 0, 0.5),  # a wrong class comes first
            ('nowhere', 0, 4, 0, 0.8),
        ],
        scores=True,
    )  # fmt: skip
    assert timelines.ranked(truth, found) == {'a': 1.0, 'b': 0.5, 'c': 0.0}


def test_the_score_of_the_best_f1_takes_all_equal_ones():
    truth = columns([('a', i, i + 1, 0) for i in range(0, 8, 2)])
    found = [
        ('a', 0, 1, 0, 0.9),
        ('a', 2, 3, 0, 0.8),
        ('a', 20, 21, 0, 0.7),
        ('a', 4, 5, 0, 0.7),
        ('a', 30, 31, 0, 0.1),
    ]
    matches = temporal.match(truth, columns(found, scores=True), {0: 'x', 1: 'y'}, (timelines.TIOU,))
    points = timelines.operating_points(matches)
    # 3 right among the 4 from 0.7 on, of 4 true ones: 6 / 8; from 0.8 on 4 / 6.
    assert points == {0: timelines.Operating(score=0.7, f1=0.75, precision=0.75, recall=0.75), 1: None}


@pytest.fixture(scope='module')
def drawn(segment_workdir, tmp_path_factory):
    (result,) = run.read_run(segment_workdir).segments
    folder = tmp_path_factory.mktemp('page')
    return result, timelines.timelines(result, segment_workdir, folder, 3), folder


def test_a_timeline_holds_the_truth_and_what_passes_the_score_of_its_class(drawn, segment_workdir, segment_maker):
    result, shown, _ = drawn
    truth, seconds = segment_maker.untrimmed(7)
    assert [timeline.place for timeline in shown] == list(timelines.PLACES)
    assert [timeline.ap for timeline in shown] == sorted((timeline.ap for timeline in shown), reverse=True)
    given = json.loads((segment_workdir / result.detections).read_text())['results']
    for timeline in shown:
        assert timeline.seconds == seconds[timeline.video]
        told = sorted((p.start, p.end, lane.name) for lane in timeline.lanes for p in lane.truth)
        assert told == sorted((s, e, segment_maker.ACTIONS[c]) for s, e, c in truth[timeline.video])
        guesses = sorted((p.start, p.score, lane.name) for lane in timeline.lanes for p in lane.guesses)
        assert guesses == sorted(
            (entry['segment'][0], entry['score'], entry['label'])
            for entry in given[timeline.video]
            if result.operating[entry['label']] and entry['score'] >= result.operating[entry['label']].score
        )


def test_no_more_predictions_are_right_than_segments_are_true(drawn):
    _, shown, _ = drawn
    lanes = [lane for timeline in shown for lane in timeline.lanes]
    assert all(sum(piece.right for piece in lane.guesses) <= len(lane.truth) for lane in lanes)
    judged = [piece.right for lane in lanes for piece in lane.guesses]
    assert any(judged) and not all(judged)


def test_the_films_are_brought_beside_the_page(drawn):
    _, shown, folder = drawn
    assert [timeline.film.address for timeline in shown] == [f'film_{i:02d}.mp4' for i in range(3, 8)]
    assert all((folder / timeline.film.address).is_file() for timeline in shown)


def test_a_second_run_is_laid_beside(drawn, segment_workdir, segment_writer, tmp_path):
    result, shown, _ = drawn
    other = segment_writer(tmp_path / 'two', blur=2.0, films=segment_workdir / 'films')
    (twin,) = run.read_run(other).segments
    both = timelines.timelines(result, segment_workdir, tmp_path, 1, twin, other)
    assert [timeline.video for timeline in both] == [timeline.video for timeline in shown]
    assert [timeline.other_ap for timeline in both] == [twin.ranked[timeline.video] for timeline in both]
    guesses = {(t.video, lane.name): lane.guesses for t in shown for lane in t.lanes}
    assert all(lane.guesses == guesses.get((t.video, lane.name), ()) for t in both for lane in t.lanes)
    assert any(lane.others for t in both for lane in t.lanes)


def test_classes_that_find_no_lane_are_named(drawn, segment_workdir, tmp_path, monkeypatch):
    result, shown, _ = drawn
    monkeypatch.setattr(timelines, 'LANES', 1)
    few = timelines.timelines(result, segment_workdir, tmp_path, 1)
    for timeline, whole in zip(few, shown, strict=True):
        assert [lane.name for lane in timeline.lanes] + list(timeline.hidden) == [lane.name for lane in whole.lanes]


def test_without_videos_the_timelines_are_still_there(segment_writer, tmp_path):
    workdir = segment_writer(tmp_path / 'run', count=5)
    (result,) = run.read_run(workdir).segments
    (workdir / 'films' / 'long_00.mp4').unlink()
    (workdir / 'films' / 'long_01.mp4').write_bytes(b'no video')
    shown = {timeline.video: timeline for timeline in timelines.timelines(result, workdir, tmp_path, 1)}
    assert 'long_00' in shown['long_00'].problem and 'long_01' in shown['long_01'].problem
    assert shown['long_00'].film is None and shown['long_02'].film is not None
    assert all(timeline.lanes for timeline in shown.values())
    (workdir / 'films').rename(workdir / 'gone')
    for timeline in timelines.timelines(result, workdir, tmp_path, 1):
        assert timeline.film is None and 'films' in timeline.problem
