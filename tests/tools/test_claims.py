import pytest


def test_options_without_sense_are_refused(run_tool, capsys):
    for wrong in (['--minutes', '-1'], ['--minutes', 'inf'], ['--steps', '0'], ['--seeds', 'many']):
        with pytest.raises(SystemExit) as stopped:
            run_tool('claims', 'cofinetuning', *wrong)
        assert stopped.value.code == 2
        assert wrong[0] in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_not_rendered_into(run_tool, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/mine.txt').write_text('mine')
    done = run_tool('claims', 'cofinetuning', '--data', tmp_path / 'data', '--out', tmp_path / 'out')
    assert done.returncode == 1 and done.stderr.startswith('claims: ') and str(tmp_path / 'data') in done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('losa', '--arms', 'loosa'), "losa has no arm 'loosa'; its arms are 'head only', 'losa', 'ladder'"),
        (('cofinetuning', '--arms', 'studio > street'), "begin with the weights of 'studio'; name it, too"),
    ],
)
def test_arms_that_cannot_be_trained_alone_are_refused(run_tool, capsys, words, message):
    with pytest.raises(SystemExit):
        run_tool('claims', *words)
    assert message in capsys.readouterr().err
