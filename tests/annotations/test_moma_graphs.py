"""MOMA 1.0's graph_anns.json."""

import json

import pytest

from vidloc.annotations import check, moma, moma_graphs
from vidloc.annotations.records import AnnotationError, PersonBox, VideoRecord


def actor(identity, left, top, right, bottom):
    corners = {'topLeft': (left, top), 'topRight': (right, top), 'bottomLeft': (left, bottom)}
    bbox = {name: {'x': x, 'y': y} for name, (x, y) in {**corners, 'bottomRight': (right, bottom)}.items()}
    return {'id_in_video': identity, 'class': 'waiter', 'bbox': bbox}


def frame(video, stamp, actors=(), actions=()):
    graph = {'actors': list(actors), 'atomic_actions': list(actions), 'objects': [], 'relationships': []}
    return {
        'annotation': graph,
        'graph_id': stamp,
        'raw_video_id': 'abc',
        'trim_video_id': video,
        'frame_timestamp': stamp,
        'frame_dim': {'width': 200, 'height': 100},
        'fps': 30,
        'activity': 'dining service',
        'subactivity': 'take the order',
    }


TALK = {'class': 'talk to (someone)', 'actor_id': 'A,B'}


def graphs():
    people = [actor('A', 20, 10, 79, 89), actor('B', 100.4, -3, 210, 99)]
    return [
        frame('20201110124009', 2, people, [TALK, {'class': 'sit', 'actor_id': 'B'}]),
        frame('20201110124009', 1, [actor('A', 20, 10, 20, 89)]),
        frame('20201201142218', 1),
    ]


def written(folder, entries):
    path = folder / 'graph_anns.json'
    path.write_text(json.dumps(entries))
    return path


def test_people_boxes_and_actions(tmp_path):
    notes = []
    one, empty = moma.read_moma(written(tmp_path, graphs()), notes=notes)
    assert (one.video, one.keyframes, empty.keyframes) == ('20201110124009', (0.0, 1.0), (0.0,))
    thin, left, right = one.boxes
    assert thin == PersonBox(0.0, (0.1, 0.1, 0.105, 0.9), (), None, 'A')  # the corners' pixels are in the box
    assert left == PersonBox(1.0, (0.1, 0.1, 0.4, 0.9), ('talk to (someone)',), None, 'A')
    assert right == PersonBox(1.0, (0.502, 0.0, 1.0, 1.0), ('talk to (someone)', 'sit'), None, 'B')
    assert [note.code for note in notes] == ['box-leaves-frame']
    assert moma.read_moma(tmp_path / 'graph_anns.json', first=0.0)[0].keyframes == (1.0, 2.0)
    assert moma.class_names(tmp_path / 'graph_anns.json') == ('sit', 'talk to (someone)')


def test_a_split_is_a_list_of_ids(tmp_path):
    (tmp_path / 'val.txt').write_text('20201201142218\n')
    assert [r.video for r in moma.read_moma(written(tmp_path, graphs()), tmp_path / 'val.txt')] == ['20201201142218']
    report = check.check('moma', [tmp_path / 'graph_anns.json'], split=tmp_path / 'val.txt', first=1.0)
    assert report.errors == 0 and report.summary[str(tmp_path / 'graph_anns.json')]['keyframes'] == 1


def test_options_of_the_other_layout_are_refused(tmp_path):
    path = written(tmp_path, graphs())
    assert moma.read_moma(path, actions=('atomic_actions',))
    with pytest.raises(AnnotationError, match='actions-unknown'):
        moma.read_moma(path, actions=('attributes',))
    with pytest.raises(AnnotationError, match='clips-unknown'):
        moma.read_moma(path, clips='activity')


def changed(**change):
    return {**graphs()[0], **change}


def graph(actors, actions):
    return changed(annotation=frame('x', 1, actors, actions)['annotation'])


@pytest.mark.parametrize(
    ('entry', 'code'),
    [
        (changed(trim_video_id=3), 'value-invalid'),
        (changed(trim_video_id='../x'), 'video-path-refused'),
        (changed(frame_timestamp=0), 'timestamp-negative'),
        (changed(frame_timestamp=1), 'moment-duplicate'),
        (changed(frame_dim=None), 'value-invalid'),
        (changed(frame_dim={'width': 0, 'height': 9}), 'size-invalid'),
        (changed(annotation={'actors': []}), 'key-missing'),
        (graph([actor('A', 1, 2, 3, 4), actor('A', 1, 2, 3, 4)], []), 'actor-duplicate'),
        (graph([actor('A', 1, 2, 3, 4)], [TALK]), 'actor-unknown'),
        (graph([actor('A', 300, 2, 310, 4)], []), 'box-empty'),
        (graph([actor('A', 1, 2, 'x', 4)], []), 'value-invalid'),
        (graph([{'id_in_video': 'A', 'bbox': {'topLeft': {'x': 1, 'y': 1}}}], []), 'key-missing'),
        (graph([3], []), 'json-layout'),
        (graph([], [3]), 'json-layout'),
    ],
)
def test_faults_have_a_code_and_a_place(tmp_path, entry, code):
    path = written(tmp_path, [*graphs()[1:], entry])
    with pytest.raises(AnnotationError) as caught:
        moma.read_moma(path)
    assert (caught.value.problems[0].code, caught.value.problems[0].line) == (code, 1)


def test_what_is_written_is_read_back_the_same(tmp_path):
    people = (
        PersonBox(0.0, (0.1, 0.1, 0.4, 0.9), ('sit', 'talk to (someone)'), None, 'A'),
        PersonBox(2.5, (0.0, 0.0, 1.0, 1.0), (), None, 'q7'),
    )
    records = [VideoRecord('a', keyframes=(0.0, 1.0, 2.5), boxes=people), VideoRecord('b', keyframes=(3.0,))]
    moma_graphs.write_moma_graphs(tmp_path / 'g.json', records, size=(200, 100))
    assert moma.read_moma(tmp_path / 'g.json') == records
    moma_graphs.write_moma_graphs(tmp_path / 'g.json', records, size=(200, 100), first=0.0)
    assert moma.read_moma(tmp_path / 'g.json', first=0.0) == records
    with pytest.raises(ValueError, match='tell people apart'):
        moma_graphs.write_moma_graphs(tmp_path / 'h.json', [VideoRecord('a', boxes=2 * people[:1])])
