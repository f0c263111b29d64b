import pytest

from vidloc.report import action_groups

AVA = {
    1: 'bend/bow (at the waist)',
    14: 'walk',
    12: 'stand',
    17: 'carry/hold (an object)',
    63: 'write',
    80: 'watch (a person)',
}


def test_the_three_types_of_ava_by_id():
    assert action_groups.of_label_map(AVA) == {
        'person movement': ('bend/bow (at the waist)', 'stand', 'walk'),
        'object manipulation': ('carry/hold (an object)', 'write'),
        'person interaction': ('watch (a person)',),
    }


@pytest.mark.parametrize(
    'classes',
    [
        {i + 1: name for i, name in enumerate(('stand', 'walk', 'sit'))},  # ids of another set
        {**AVA, 12: 'sit'},  # one that contradicts
        {11: 'sit', 12: 'stand'},  # too few to tell
        {},
    ],
)
def test_other_label_maps_have_none(classes):
    assert action_groups.of_label_map(classes) == {}


def test_groups_from_a_file(tmp_path):
    path = tmp_path / 'groups.csv'
    path.write_text('\ufeff"talk (to self, a group)",social\nwalk , moving\n\nrun,moving\n', encoding='utf-8')
    groups = action_groups.read_groups(path)
    assert groups == {'social': ('talk (to self, a group)',), 'moving': ('walk', 'run')}
    assert action_groups.among(groups, ['run', 'jump', 'walk']) == {'moving': ('run', 'walk')}


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('walk\n', ':1: expected a class and its group'),
        ('walk,moving\ntalk to (e.g., self),social\n', ':2: .*quotes'),
        ('walk,\n', ':1: expected'),
        ('walk,a\nrun,a\nwalk,b\n', ":3: 'walk' is there since line 1"),
        ('', 'no row'),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_line(tmp_path, text, says):
    (tmp_path / 'groups.csv').write_text(text)
    with pytest.raises(action_groups.GroupError, match=r'groups\.csv' + ('' if says.startswith(':') else '.*') + says):
        action_groups.read_groups(tmp_path / 'groups.csv')


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / 'groups.csv').write_bytes(b'\xff\xfe\x00walk')
    with pytest.raises(action_groups.GroupError, match='UTF-8'):
        action_groups.read_groups(tmp_path / 'groups.csv')
