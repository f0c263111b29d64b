"""A prepared set gives what the folder of files that it was made of gives."""

import json
import pickle
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from vidloc.annotations import records as rec
from vidloc.data import clips as clip_data
from vidloc.data import encode, footage, mixture, part, pipeline, prepare, prepared, sources, video

RATE, SECONDS = 10, 12
FILM_GOP = 15


def film(path, frames=SECONDS * RATE, gop=FILM_GOP):
    """A film whose frames tell their number, longer than the chunks of these tests."""
    noise = np.random.default_rng(1).integers(0, 255, (6, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    pictures = (np.roll(noise, number, axis=1) // 2 + number for number in range(frames))
    encode.write_video(path, pictures, RATE, gop=gop, crf=10)


def records(rectangles):
    """Of the street's videos, of a film, of a file that its path names, and of Kinetics clips of one video."""
    people = rec.PersonBox(7.5, rectangles.box_of(rectangles.red), ('walk',))
    moments = (people, rec.PersonBox(0.3, people.box, ('talk',)), rec.PersonBox(11.8, people.box, ('wave',)))
    moments = tuple(sorted(moments, key=lambda person: person.time))
    clip = rec.PersonBox(15.5, people.box, ('wave',))
    return [
        *rectangles.keyframes(3),
        rec.VideoRecord('film', keyframes=(0.3, 7.5, 11.8), boxes=moments),
        rec.VideoRecord('tube', keyframes=(15.5,), boxes=(clip,)),
        rec.VideoRecord('named', path='sub/b.mp4', keyframes=(1.0,), boxes=rectangles.keyframes(1)[0].boxes),
    ]


@pytest.fixture(scope='module')
def folder(rectangles, tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    for i in range(3):
        shutil.copy(rectangles.folder / f'v{i:02d}.mp4', folder)
    for name in ('sub/b.mp4', 'tube_000010_000012.mp4', 'tube_000014_000016.mp4'):
        rectangles.write(folder / name)
    film(folder / 'film.mp4')
    shutil.copy(rectangles.folder / 'v09.mp4', folder / 'unused.mp4')
    return folder


@pytest.fixture(scope='module')
def made(folder, rectangles, tmp_path_factory):
    out = tmp_path_factory.mktemp('made') / 'set'
    options = part.Options(chunk_seconds=3.0, overlap=1.2)
    manifest = prepare.write(out, prepare.plan(records(rectangles), str(folder), options))
    assert manifest['counts']['cut_into_chunks'] == 1 and manifest['counts']['videos'] == 7
    return out


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / 'copy')


def test_the_same_records_find_the_same_takes_timelines_and_frames(folder, made, rectangles):
    files, packed = footage.open_footage(str(folder)), footage.open_footage(str(made))
    assert isinstance(packed, prepared.PreparedVideos)
    rng = np.random.default_rng(0)
    for record in [*records(rectangles), rec.VideoRecord('gone'), rec.VideoRecord('b', path='b.mp4')]:
        takes = files.takes(record), packed.takes(record)
        assert [(take.start, take.end) for take in takes[0]] == [(take.start, take.end) for take in takes[1]]
        for one, other in zip(*takes, strict=True):
            expected, found = files.timeline(one.key), packed.timeline(other.key)
            assert found.times.tolist() == expected.times.tolist()
            for field in ('pts', 'keyframes'):
                np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
            for field in ('time_base', 'last_ticks', 'missing', 'width', 'height', 'pixel_aspect', 'codec', 'duration'):
                assert getattr(found, field) == getattr(expected, field), field
            for start in (-0.7, expected.duration, *rng.uniform(0, expected.duration, 10)):
                times = start + np.array([0.4, 0.0, 1.1])
                np.testing.assert_array_equal(packed.read(other.key, times), files.read(one.key, times))


def test_every_frame_of_a_film_in_chunks_is_that_of_the_file(folder, made):
    files, packed = footage.open_footage(str(folder)), footage.open_footage(str(made))
    (take,) = packed.takes(rec.VideoRecord('film'))
    path = str(folder / 'film.mp4')
    whole = files.read(path, files.timeline(path).times)
    for number, time in enumerate(packed.timeline(take.key).times):
        np.testing.assert_array_equal(packed.read(take.key, np.array([time]))[0], whole[number])


def batches(videos, records, rectangles):
    """Of a source with boxes and one of clips, all augmentation on."""
    boxes = rectangles.source(videos, 0, records=records, frames=4)
    labelled = [
        rec.VideoRecord(record.video, path=record.path, labels=(rec.ClipLabel('wave'),))
        for record in records
        if record.video != 'tube'
    ]
    view = clip_data.Clips(videos=str(videos), frames=6, rate=8.0, size=(24, 32))
    labels = clip_data.ClipSource('yard', view, labelled, ('walk', 'wave'), train=True)
    schedule = mixture.Mixture().schedule({'street': len(boxes), 'yard': len(labels)}, 8, 0)
    plan = pipeline.Plan((boxes, labels), schedule, (4, 3), ((0, 4), (0, 3)), seed=5)
    prints = [source.fingerprint() for source in (boxes, labels)]
    return prints, list(pipeline.train_batches(plan, pipeline.Loading()))


def test_training_gets_the_same_batches(folder, made, rectangles):
    prints, expected = batches(folder, records(rectangles), rectangles)
    found_prints, found = batches(made, records(rectangles), rectangles)
    assert found_prints == prints
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys() and not one['replaced'].any()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_longer_clips_than_chunks_hold_are_put_together(made, folder):
    packed = prepared.PreparedVideos(str(made))
    assert packed.longest_clip == 1.2
    (take,) = packed.takes(rec.VideoRecord('film'))
    for times in ([2.9, 6.5], [6.5, 11.9, 0.0, 6.5, 2.9], np.arange(0, SECONDS, 0.7)):
        expected = video.read_frames(folder / 'film.mp4', np.array(times))
        np.testing.assert_array_equal(packed.read(take.key, np.array(times)), expected)


def test_a_clip_is_read_from_one_record_alone(made):
    packed = prepared.PreparedVideos(str(made))
    (take,) = packed.takes(rec.VideoRecord('film'))
    pieces = packed._table.pieces(int(take.key.split(':')[0]))
    index = packed.timeline(take.key)
    assert len(pieces) > 2
    for start in np.arange(-1.0, SECONDS, 0.03):
        groups = prepared._groups(pieces, index.frames_at(start + np.array([0.0, 1.2])))
        assert len(groups) == 1 and groups[0][1].tolist() == [0, 1]


def test_it_travels_light_and_threads_may_share_it(made, folder, rectangles):
    packed = prepared.PreparedVideos(str(made))
    takes = [take.key for record in records(rectangles) for take in packed.takes(record)]
    assert len(pickle.dumps(packed)) < 2000
    copy = pickle.loads(pickle.dumps(packed))  # noqa: S301 written here
    expected = [packed.read(key, np.array([0.5, 1.0])) for key in takes]
    wrong = []

    def read():
        for key, frames in zip(takes, expected, strict=True):
            if not np.array_equal(copy.read(key, np.array([0.5, 1.0])), frames):
                wrong.append(key)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_another_process_reads_it_without_jax(made):
    packed = prepared.PreparedVideos(str(made))
    (take,) = packed.takes(rec.VideoRecord('film'))
    code = (
        'import pickle, sys, numpy as np\n'
        'packed = pickle.load(sys.stdin.buffer)\n'
        f'print(packed.read({take.key!r}, np.array([7.5])).sum(), "jax" in sys.modules, "tensorflow" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], input=pickle.dumps(packed), capture_output=True, check=True)
    assert done.stdout.decode().split() == [str(packed.read(take.key, np.array([7.5])).sum()), 'False', 'False']


def test_tfds_reads_it_as_a_data_set(made, folder, rectangles, monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(made).as_data_source('videos')
    examples = [source[i] for i in range(len(source))]
    names = [bytes(example['name']).decode() for example in examples]
    film = [example for example, name in zip(examples, names, strict=True) if name == 'film.mp4']
    assert [name for name in names if name != 'film.mp4'] == [
        'tube_000010_000012.mp4', 'tube_000014_000016.mp4', 'v00.mp4', 'v01.mp4', 'v02.mp4', 'sub/b.mp4'
    ]  # fmt: skip
    assert [int(example['chunk']) for example in film] == list(range(int(film[0]['chunks']))) and len(film) > 2
    whole = video.index_video(folder / 'film.mp4')
    for example in film:
        start = int(example['start_us']) / 1e6
        np.testing.assert_array_equal(
            video.read_frames(example['video'], np.array([0.3])),
            video.read_frames(folder / 'film.mp4', np.array([start + 0.3]), index=whole),
        )
    by_name = dict(zip(names, examples, strict=True))
    assert by_name['v01.mp4']['video'] == (folder / 'v01.mp4').read_bytes()
    (told,) = json.loads(bytes(by_name['v01.mp4']['annotations']))
    assert told['video'] == 'v01' and told['boxes'][0]['labels'] == ['walk']
    assert json.loads(bytes(film[0]['annotations']))[0]['keyframes'] == [0.3, 7.5, 11.8]
    assert not (tmp_path / 'home').exists()


def test_damage_is_found(copy):
    assert prepared.verify(copy) == []
    manifest = json.loads((copy / 'manifest.json').read_text())
    path = copy / manifest['files'][2]['name']
    content = bytearray(path.read_bytes())
    at = len(content) // 2
    content[at] ^= 1
    path.write_bytes(content)
    column = copy / 'index' / 'pts.npy'
    column.write_bytes(column.read_bytes() + b'.')
    assert sorted(each.split(':')[0] for each in prepared.verify(copy)) == sorted([str(path), str(column)])
    path.write_bytes(content[:at])
    with pytest.raises(prepared.PreparedError, match=r'00002-of-.* bytes, the manifest says \d+ bytes; .*--verify'):
        prepared.PreparedVideos(str(copy))
    path.unlink()
    with pytest.raises(prepared.PreparedError, match='missing'):
        prepared.PreparedVideos(str(copy))
    assert f'{path}: missing' in prepared.verify(copy)


def test_a_damaged_record_is_a_broken_video_that_is_named(copy, rectangles):
    packed = prepared.PreparedVideos(str(copy))
    (take,) = packed.takes(rec.VideoRecord('v01'))
    piece = packed._table.pieces(int(take.key.split(':')[0]))[0]
    path = copy / packed.files[piece.file_number]
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes(byte ^ 255 for byte in content[1000:9000]) + content[9000:])
    with pytest.raises(video.VideoError, match=r'v01\.mp4, in record 0 of .*--verify'):
        packed.read(take.key, np.zeros(1))


def test_what_cannot_be_opened_says_why(copy, made, rectangles):
    manifest = json.loads((copy / 'manifest.json').read_text())
    (copy / 'index' / 'frames.npy').unlink()
    with pytest.raises(prepared.PreparedError, match='index: damaged'):
        prepared.PreparedVideos(str(copy))
    (copy / 'manifest.json').write_text(json.dumps(manifest | {'format_version': 99}))
    with pytest.raises(prepared.PreparedError, match='format 99, this version of vidloc reads 1'):
        prepared.PreparedVideos(str(copy))
    (copy / 'manifest.json').write_text('{"kind"')
    with pytest.raises(sources.DataError, match=r'street: .*manifest\.json: damaged'):
        rectangles.source(copy, 0, records=records(rectangles))


def test_missing_videos_are_refused_as_in_a_folder(made, rectangles):
    some = [*records(rectangles), rec.VideoRecord('gone', keyframes=(1.0,), boxes=rectangles.keyframes(1)[0].boxes)]
    with pytest.raises(sources.DataError, match=r'1 of 7 videos are not in .*gone'):
        rectangles.source(made, 0, records=some)
    assert rectangles.source(made, 0, records=some, missing='leave_out').left_out == ('gone',)
