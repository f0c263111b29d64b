import numpy as np

from vidloc.annotations.records import PersonBox, VideoRecord
from vidloc.synthetic import detections, export

TRUTH = [
    VideoRecord(
        f'v{i}',
        keyframes=(1.0, 2.0, 3.0),
        boxes=tuple(
            PersonBox(time, (0.1 + x, 0.2, 0.25 + x, 0.8), ('walk',), None, str(j))
            for time in (1.0, 2.0)
            for j, x in enumerate((0.0, 0.5))
        ),
    )
    for i in range(200)
]


def _detect(labelled):
    return [detections.detect(truth, labelled, np.random.SeedSequence(i)) for i, truth in enumerate(TRUTH)]


def test_overlap_by_hand():
    assert detections.overlap((0, 0, 1, 1), (0.5, 0, 1.5, 1)) == 1 / 3
    assert detections.overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0


def test_as_good_as_a_real_detector_and_no_better():
    quality = export.detection_quality(list(zip(TRUTH, _detect(False), strict=True)))
    assert 0.90 < quality['recall'] < 0.99
    assert 0.85 < quality['precision'] < 0.99


def test_scores_tell_right_from_wrong():
    right, wrong = [], []
    for truth, found in zip(TRUTH, _detect(False), strict=True):
        for guess in found.boxes:
            people = [person for person in truth.boxes if person.time == guess.time]
            hit = any(detections.overlap(person.box, guess.box) > 0.5 for person in people)
            (right if hit else wrong).append(guess.score)
            assert 0 <= guess.score <= 1
            assert 0 <= guess.box[0] < guess.box[2] <= 1 and 0 <= guess.box[1] < guess.box[3] <= 1
    assert np.mean(right) > 0.85 and np.mean(wrong) < 0.6


def test_labels_only_where_asked_and_only_on_good_boxes():
    assert not any(guess.labels for found in _detect(False) for guess in found.boxes)
    labelled = [(truth, guess) for truth, found in zip(TRUTH, _detect(True), strict=True) for guess in found.boxes]
    assert any(guess.labels for _, guess in labelled) and any(not guess.labels for _, guess in labelled)
    for truth, guess in labelled:
        people = [person for person in truth.boxes if person.time == guess.time]
        best = max((detections.overlap(person.box, guess.box) for person in people), default=0.0)
        assert bool(guess.labels) == (best >= detections.LABEL_OVERLAP)


def test_boxes_at_the_very_edge_stay_boxes():
    truth = VideoRecord('v', keyframes=(1.0,), boxes=(PersonBox(1.0, (0.0, 0.0, 0.02, 0.03), ('walk',)),))
    for seed in range(200):
        for guess in detections.detect(truth, False, np.random.SeedSequence(seed)).boxes:
            assert guess.box[0] < guess.box[2] and guess.box[1] < guess.box[3]
