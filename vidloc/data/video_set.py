"""Videos as a TensorFlow dataset (tfds) in array_record files, written and read without TensorFlow.

An example is a video, or a chunk of a long one: `name`, the video's path; `video`, the bytes of a file that decodes by
itself; `start_us`, microseconds from the first frame of the video to that of these bytes; `chunk` and `chunks`, which
of how many; `annotations`, JSON: the records of annotations/records.py about this video (in its first chunk; `[]` in
the others). The order is that of writing: tfds, left to itself, orders by a hash.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import numpy as np

NAME, SPLIT, VERSION = 'vidloc_videos', 'videos', '1.0.0'
# tfds keeps what it writes to one file in memory, and beyond 1000 MiB it needs TensorFlow.
LARGEST = 900 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """See the text above."""

    name: str
    video: bytes
    start_us: int
    chunk: int
    chunks: int
    annotations: str


def file_name(number: int, count: int) -> str:
    """What tfds calls file `number` of `count`."""
    return f'{NAME}-{SPLIT}.array_record-{number:05d}-of-{count:05d}'


@functools.cache
def features():
    """The features of an example, which also parse it."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            'name': tfds.features.Text(),
            'video': tfds.features.Tensor(shape=(), dtype=np.object_),
            'start_us': np.int64,
            'chunk': np.int64,
            'chunks': np.int64,
            'annotations': tfds.features.Tensor(shape=(), dtype=np.object_),
        }
    )


@functools.cache
def _builder_class():
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class VideoSet(tfds.core.GeneratorBasedBuilder):
            """Videos of one data set, as they are on disk."""

            name = NAME
            VERSION = tfds.core.Version(VERSION)
            # Nothing is downloaded. tfds would look beside this module for checksums, by a package it does not install.
            url_infos = None

            def __init__(self, *, examples: Iterable[Example] = (), **options):
                self._examples = examples
                super().__init__(file_format='array_record', **options)

            def _info(self):
                # Left to itself tfds looks for a README and tags beside the module.
                return tfds.core.DatasetInfo(builder=self, features=features(), disable_shuffling=True)

            def _split_generators(self, dl_manager):
                return {SPLIT: self._generate_examples()}

            def _generate_examples(self):
                for number, example in enumerate(self._examples):
                    yield number, {name: getattr(example, name) for name in features()}

    return VideoSet


def write_file(path: str | os.PathLike, examples: Iterable[Example]) -> None:
    """Writes one array_record file through tfds; it appears under its name when it is complete.

    Args:
      path: the file. A folder called like it with `.partial` at its end is used meanwhile.
      examples: at least one, LARGEST bytes in all; what iterating raises is raised here.
    """
    import tensorflow_datasets as tfds

    path = pathlib.Path(path)
    scratch = path.with_name(f'{path.name}.partial')
    shutil.rmtree(scratch, ignore_errors=True)
    watched = _Watched(examples)
    tfds.disable_progress_bar()
    settings = tfds.download.DownloadConfig(
        num_shards=1, try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    try:
        builder = _builder_class()(examples=watched, data_dir=scratch)
        with _quiet():
            builder.download_and_prepare(download_config=settings)
        os.replace(pathlib.Path(builder.data_dir, file_name(0, 1)), path)
    except Exception:
        # tfds wraps errors in others of changing types.
        if watched.error is not None:
            raise watched.error from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Watched:
    """Examples, and the error that getting them ended with."""

    def __init__(self, examples: Iterable[Example]):
        self._examples, self.error = examples, None

    def __iter__(self) -> Iterator[Example]:
        try:
            yield from self._examples
        except Exception as error:
            self.error = error
            raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """tfds prints what it does; here one file of many is written."""
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def write_description(folder: str | os.PathLike, lengths: Iterable[int], size: int) -> None:
    """Makes a folder of files, called by file_name, one that tfds.builder_from_directory opens.

    lengths: examples of each file. size: bytes of all files.
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        dataset_name=NAME, split=SPLIT, filetype_suffix='array_record', data_dir=pathlib.Path(folder)
    )
    split = tfds.core.SplitInfo(name=SPLIT, shard_lengths=list(lengths), num_bytes=size, filename_template=template)
    scratch = pathlib.Path(folder, 'description.partial')
    builder = _builder_class()(data_dir=scratch)
    builder.info.set_splits(tfds.core.splits.SplitDict([split]))
    scratch.mkdir(exist_ok=True)
    builder.info.write_to_directory(scratch)
    for name in ('dataset_info.json', 'features.json'):
        os.replace(scratch / name, pathlib.Path(folder, name))
    shutil.rmtree(scratch)


def parse(record: bytes) -> Example:
    """An example from a record of a file."""
    values = features().deserialize_example_np(record)
    return Example(
        name=bytes(values['name']).decode(),
        video=values['video'],
        annotations=bytes(values['annotations']).decode(),
        **{name: int(values[name]) for name in ('start_us', 'chunk', 'chunks')},
    )


def annotations_text(records: Iterable) -> str:
    """Records of annotations as JSON."""
    return json.dumps([dataclasses.asdict(record) for record in records])
