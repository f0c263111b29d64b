import av
import numpy as np
import pytest

from vidloc.annotations.records import VideoRecord
from vidloc.data import encode, footage, video
from vidloc.report import films


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'page').mkdir()
    frames = np.stack([np.full((40, 60, 3), 8 * i, np.uint8) for i in range(24)])
    encode.write_video(tmp_path / 'videos' / 'one.mp4', frames, 8.0)
    return tmp_path


def bring(folder, name='one', moment=1.5):
    return films.bring(footage.open_footage(str(folder / 'videos')), VideoRecord(name), folder / 'page', 7, moment)


def test_a_small_file_that_browsers_play_is_copied(folder):
    film = bring(folder)
    assert film.address == 'film_07.mp4' and (film.seconds, film.start, film.moment) == (3.0, 0.0, 1.5)
    assert (folder / 'page' / film.address).read_bytes() == (folder / 'videos' / 'one.mp4').read_bytes()
    assert film.poster_url.startswith('data:image/jpeg;base64,') and (film.width, film.height) == (60, 40)


def test_a_large_one_is_linked_where_it_lies(folder, monkeypatch):
    monkeypatch.setattr(films, 'COPIED', 10)
    (folder / 'videos' / 'one.mp4').rename(folder / 'videos' / 'a "b" %.mp4')
    film = bring(folder, 'a "b" %')
    assert film.address == '../videos/a%20%22b%22%20%25.mp4' and not list((folder / 'page').iterdir())


def test_what_browsers_do_not_play_is_encoded_anew_and_cut(folder, monkeypatch):
    monkeypatch.setattr(films, 'MAX_SECONDS', 2.0)
    monkeypatch.setattr(films, 'LONG_SIDE', 30)
    with av.open(str(folder / 'videos' / 'two.avi'), 'w') as container:
        stream = container.add_stream('mpeg4', rate=8)
        stream.width, stream.height, stream.pix_fmt = 60, 40, 'yuv420p'
        for i in range(24):
            frame = av.VideoFrame.from_ndarray(np.full((40, 60, 3), 8 * i, np.uint8), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    film = bring(folder, 'two')
    index = video.index_video(folder / 'page' / film.address)
    assert (index.codec, index.width, index.height, len(index.pts)) == ('h264', 30, 20, 16)
    assert film.seconds == 2.0 and (film.width, film.height) == (30, 20)


def test_a_video_that_is_not_there_is_named(folder):
    with pytest.raises(video.VideoError, match='three'):
        bring(folder, 'three')
