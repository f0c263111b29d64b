import math

import ml_collections
import numpy as np
import pytest

from vidloc import config as config_lib
from vidloc.config import ConfigError
from vidloc.experiments import space
from vidloc.experiments.space import Range, Space, Values

CONFIG = ml_collections.ConfigDict(
    {
        'seed': 0,
        'schedule': {'rate': 0.1, 'kind': 'cosine'},
        'film': {'count': 8, 'shared': True},
        'backbone': {'grid': (2, 4, 6)},
        'rules': (('a', 1.0),),
    }
).lock()


def parsed(*texts):
    return space.parsed(CONFIG, texts)


def test_values_are_parted_at_commas_outside_of_brackets_and_quotes():
    fields = parsed('backbone.grid=(2,4),(4, 4), (1,)', 'rules=(("a,b",1.0),),()', 'schedule.kind=cosine,linear').fields
    assert fields['backbone.grid'] == Values(('(2,4)', '(4, 4)', '(1,)'))
    assert fields['rules'] == Values(('(("a,b",1.0),)', '()'))
    assert fields['schedule.kind'] == Values(('cosine', 'linear'))


def test_values_are_read_as_main_reads_overrides():
    grid = parsed('backbone.grid=(2,4),3', 'film.shared=true,false', 'schedule.rate=1,1e-3')
    changed = CONFIG
    for field, text in space.trials(grid, None, 0)[-1].items():
        changed = config_lib.overridden(changed, field, text, field)
    assert changed.backbone.grid == (3,) and changed.film.shared is False and changed.schedule.rate == 1e-3
    assert CONFIG.backbone.grid == (2, 4, 6)


def test_ranges():
    fields = parsed('schedule.rate=1e-5..1e-2', 'film.count=4..12').fields
    assert fields == {'schedule.rate': Range(1e-5, 1e-2), 'film.count': Range(4.0, 12.0, whole=True)}


@pytest.mark.parametrize(
    ('texts', 'words'),
    [
        (('schedule.rat=1',), r"--set schedule.rat: config.schedule has no 'rat'; did you mean 'rate'\?"),
        (('schedule.rate',), 'write FIELD=VALUE'),
        (('schedule.rate=',), 'write FIELD=VALUE'),
        (('schedule.rate=1,fast',), 'schedule.rate=fast: could not convert'),
        (('film.count=4,4.5',), 'film.count=4.5: invalid literal'),
        (('film.count=4,8,4',), '4 is there twice'),
        (('schedule.rate=1e-3,0.001',), '0.001 is there twice'),
        (('film.count=4', 'film.count=8'), 'film.count is there twice'),
        (('schedule={}',), 'name one whole field'),
        (('backbone.grid[0]=1,2',), 'name one whole field'),
        (('backbone.grid=(1,2',), 'has no partner'),
        (('schedule.rate=0..1',), 'needs 0 < LOW < HIGH'),
        (('schedule.rate=1..1',), 'needs 0 < LOW < HIGH'),
        (('film.count=0.5..4',), 'film.count=0.5: invalid literal'),
    ],
)
def test_what_is_no_space_is_refused_in_one_line(texts, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parsed(*texts)
    assert '\n' not in str(caught.value)


def test_two_dots_in_a_text_are_no_range():
    config = ml_collections.ConfigDict({'weights': 'x'}).lock()
    assert space.parsed(config, ['weights=../a,../b']).fields['weights'] == Values(('../a', '../b'))


GRID = Space({'a': Values(('1', '2', '3')), 'b': Values(('x', 'y'))})


@pytest.mark.parametrize('count', [None, 6, 100])
def test_a_grid_that_fits_is_taken_whole_in_its_order(count):
    points = space.trials(GRID, count, seed=3)
    assert [tuple(point.values()) for point in points] == [(a, b) for a in '123' for b in 'xy']


def hashable(points):
    return [tuple(point.items()) for point in points]


def test_a_part_of_a_grid_is_seeded_without_repeats_and_begins_like_a_smaller_part():
    whole = set(hashable(space.trials(GRID, None, 0)))
    seen = set()
    for seed in range(30):
        points = hashable(space.trials(GRID, 5, seed))
        assert len(set(points)) == 5 and set(points) <= whole
        assert points == hashable(space.trials(GRID, 5, seed))
        assert points[:3] == hashable(space.trials(GRID, 3, seed))
        seen.add(points[0])
    assert seen == whole


def test_a_grid_too_large_to_list_is_drawn_from():
    fields = {f'field{i}': Values(tuple(map(str, range(10)))) for i in range(30)}
    points = hashable(space.trials(Space(fields), 50, 0))
    assert len(set(points)) == 50 and all(len(point) == 30 for point in points)


def test_ranges_are_log_uniform_and_stay_inside():
    ranges = Space({'rate': Range(1e-5, 1e-2), 'count': Range(4, 12, whole=True), 'kind': Values(('a', 'b'))})
    points = space.trials(ranges, 600, seed=0)
    assert len(set(hashable(points))) == 600
    assert hashable(points[:50]) == hashable(space.trials(ranges, 50, seed=0))
    rates = np.array([float(point['rate']) for point in points])
    assert rates.min() >= 1e-5 and rates.max() <= 1e-2
    thirds = np.histogram(np.log10(rates), [-5, -4, -3, -2])[0]
    assert all(150 < third < 250 for third in thirds), thirds
    counts = [int(point['count']) for point in points]
    assert set(counts) == set(range(4, 13)) and counts.count(4) > counts.count(12)
    assert {point['kind'] for point in points} == {'a', 'b'}


def test_a_range_with_few_numbers_gives_those_that_there_are():
    points = space.trials(Space({'count': Range(4, 6, whole=True)}), 10, seed=0)
    assert sorted(point['count'] for point in points) == ['4', '5', '6']


def test_a_range_needs_a_count():
    ranges = Space({'rate': Range(1e-5, 1e-2)})
    assert math.isinf(ranges.size) and GRID.size == 6
    with pytest.raises(ConfigError, match='--trials'):
        space.trials(ranges, None, 0)
