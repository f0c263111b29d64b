import numpy as np
import pytest

from vidloc.synthetic import script, upstream

STAGE = upstream.ClipStage(48, 8, 8)
LABELS = [(name, label) for name, clip_set in upstream.CLIP_SETS.items() for label in clip_set.classes]


@pytest.mark.parametrize(('name', 'label'), LABELS)
def test_clips_show_one_person_in_the_middle(name, label):
    clip_set = upstream.CLIP_SETS[name]
    for number in range(3):
        frames = upstream.draw(clip_set, label, STAGE, np.random.SeedSequence([number, 5]))
        assert frames.shape == (8, 48, 48, 3) and frames.dtype == np.uint8
        # The first column is wall and ground alone, mostly; a person differs from it.
        away = np.abs(frames.astype(int) - frames[:, :, :1].astype(int)).sum(axis=3) > 60
        rows, columns = np.nonzero(away.any(axis=0))
        assert 12 < columns.mean() < 36 and 10 < rows.mean() < 38
        assert 0.03 < away.mean() < 0.4


def test_label_sets_differ_and_share_movements_with_the_street():
    studio, yard = (upstream.CLIP_SETS[name].classes for name in ('studio', 'yard'))
    assert not set(studio) & set(yard)
    assert not (set(studio) | set(yard)) & set(script.STREET_CLASSES)
    for classes in (studio, yard):
        actions = {script.ACTIONS[action].label for action, _ in classes.values()}
        assert len(classes) == 10 and len(actions & set(script.STREET_CLASSES)) >= 5


def test_hard_clips_differ_from_plain_ones():
    hard = upstream.ClipStage(48, 8, 8, hard=True)
    clip_set = upstream.CLIP_SETS['yard']
    frames = upstream.draw(clip_set, 'jogging', hard, np.random.SeedSequence(1))
    plain = upstream.draw(clip_set, 'jogging', STAGE, np.random.SeedSequence(1))
    # Within a row a plain wall has one colour.
    assert frames[:, :6].std(axis=2).mean() > 4 and plain[:, :6].std(axis=2).mean() < 4
