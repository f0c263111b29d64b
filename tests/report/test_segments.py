"""The page of a run on segments."""

import json
import re

import pytest

from vidloc.report import page


@pytest.fixture(scope='module')
def written(segment_workdir, tmp_path_factory, read_page):
    path = page.write_page(segment_workdir, tmp_path_factory.mktemp('page'))
    return path, read_page(path)


def test_the_page_shows_the_scores_and_says_on_what(written, segment_workdir):
    _, read = written
    data = json.loads((segment_workdir / 'eval' / 'films.json').read_text())
    assert f'films: average mAP {data["metrics"]["average_map"]:.3f}' in read.text
    assert f'On 7 videos with {sum(data["truth_count"].values())} segments of 4 classes.' in read.text
    assert f'tIoU 0.7 {data["metrics"]["map@0.7"]:.3f}' in read.text
    assert 'AP at 0.3 AP at 0.5 AP at 0.7 true segments training segments best F1' in read.text
    assert 'Bins of true segments: fitted to the true segments of this source' in read.text


def test_the_page_says_how_videos_and_scores_are_chosen(written):
    path, read = written
    assert 'the score is chosen on the videos that are shown' in read.text
    for place in ('best', 'upper quarter', 'median', 'lower quarter', 'worst'):
        assert f'{place}, AP ' in read.text
    names = {video['src'] for video in read.named('video')}
    assert names == {f'film_{i:02d}.mp4' for i in range(1, 6)} and all((path.parent / name).is_file() for name in names)
    assert all((path.parent / f'timeline_{i:02d}.png').is_file() for i in range(1, 6))


def test_the_page_keeps_to_itself(written):
    path, read = written
    content = path.read_text(encoding='utf-8')
    assert '<b>spin' not in content and read.text.count('<b>spin</b>') > 5
    assert 'http://' not in content and 'https://' not in content
    assert len(read.named('script')) == 1 and not [a for _, given in read.tags for a in given if a.startswith('on')]
    assert all(given['aria-label'] for _, given in read.tags if given.get('role') == 'img')


def test_a_second_run_is_shown_beside(written, segment_workdir, segment_writer, tmp_path, read_page):
    other = segment_writer(tmp_path / 'head_only', blur=2.0, films=segment_workdir / 'films')
    read = read_page(page.write_page(segment_workdir, tmp_path / 'out', other))
    here, there = (
        json.loads((folder / 'eval' / 'films.json').read_text())['metrics']['average_map']
        for folder in (segment_workdir, other)
    )
    assert f'films: average_map {here:.3f} {there:.3f} +{here - there:.3f} 700 / 700' in read.text
    assert 'bands from above: true, this run, head_only' in read.text
    assert 'normalised mAP, %, head_only' in read.text
    assert len(re.findall('this run 1G', read.text)) == 1 and 'head_only 1G' in read.text


def test_bins_of_another_kind_are_not_compared(segment_workdir, segment_writer, tmp_path):
    other = segment_writer(tmp_path / 'two', blur=2.0, films=segment_workdir / 'films')
    path = other / 'eval' / 'films.json'
    data = json.loads(path.read_text())
    data['analysis']['characteristics']['length'][0]['high'] = 1.234
    path.write_text(json.dumps(data))
    content = page.write_page(segment_workdir, tmp_path / 'out', other).read_text(encoding='utf-8')
    for name, known in (('length in seconds', False), ('coverage: share of its video', True)):
        rows = re.findall(rf'<tr><th scope="row">{name}</th>.*?</tr>', content)
        assert len(rows) >= 6 and all(row.endswith('<td>–</td></tr>') is not known for row in rows)


def test_videos_of_a_source_of_features_can_be_named(segment_workdir, segment_writer, tmp_path, read_page):
    workdir = segment_writer(tmp_path / 'run', films=segment_workdir / 'films')
    path = workdir / 'eval' / 'films.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'videos': ''}))
    assert not read_page(page.write_page(workdir)).named('video')
    films = segment_workdir / 'films'
    assert len(read_page(page.write_page(workdir, films=films)).named('video')) == 5


def test_detections_that_are_gone_leave_the_rest_of_the_page(segment_workdir, segment_writer, tmp_path, read_page):
    workdir = segment_writer(tmp_path / 'run', films=segment_workdir / 'films')
    (workdir / 'eval' / 'films_detections.json').unlink()
    read = read_page(page.write_page(workdir))
    assert 'No timeline is shown' in read.text and 'films: where precision is lost' in read.text
