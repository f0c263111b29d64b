"""Made-up series of figures that do and do not show each sign, named as a run logs them."""

import itertools

import pytest

from vidloc.tasks import group_relative, group_signs

GROUP = group_relative.GroupRelative()
START = 0.005
BASE = 0.24


def figures(*, gamma=0.2, beta=0.2, kl=1e-3, spread=0.3, top=0.28, entropy=0.2, copies=0.2, loss=0.1, wrong=None, n=4):
    """What is logged of the task `street` at a step. wrong: the loss of the copies, as that of the originals if
    None. kl: divergence beyond the entropy; spread: relative to it."""
    named = {f'{i:02d}': 1 - 0.1 * i for i in range(n)}
    bins = {f'{i / 10:.1f}': (1 - top) / 9 for i in range(9)} | {'0.9': top}
    told = {
        'loss': 2 * loss,
        'original': loss,
        'copies': loss if wrong is None else wrong,
        'weighted_copies': 0.7 * loss,
        'distillation': entropy + kl,
        'copies_entropy': copies,
        'original_entropy': entropy,
        'divergence_spread': spread * kl / (entropy + kl),
        **{f'gamma/{i}': gamma * part for i, part in named.items()},
        **{f'beta/{i}': beta * part for i, part in named.items()},
        **{f'divergence/{i}': entropy + kl for i in named},
        **{f'weights/{i}': share for i, share in bins.items()},
    }
    return {f'train/street/{name}': value for name, value in told.items()}


def evaluated(held, gap):
    """A pair of sources at an evaluation."""
    return {'eval/val/map': held, 'eval/shots/map': held + gap, 'eval/val/gap/map': gap, 'eval/val/videos': 9.0}


def signs(**changed):
    watched = {'group': GROUP, 'base_rates': BASE} | changed.pop('watched', {})
    given = {'copies': 4, 'start': START, 'lora': True} | changed
    return group_signs.Signs({'street': group_signs.Watched(**watched)}, **given)


def seen(signs, *rows):
    """{sign: steps at which it was given} of (step, figures) rows."""
    found = {}
    for step, row in rows:
        for sign in signs.look(step, row):
            found.setdefault(sign, []).append(step)
    return found


def falling(step):
    return BASE * 0.99 ** (step / 10)


def run(steps=600, every=20, **shown):
    """Rows of a run whose loss falls; shown: {keyword of `figures`: value, or function of the step}."""
    for step in range(every, steps + 1, every):
        values = {key: value(step) if callable(value) else value for key, value in shown.items()}
        yield step, figures(**({'loss': falling(step)} | values))


def test_a_good_run_shows_no_sign():
    good = run(gamma=lambda step: START + 1e-3 * step, spread=0.2, copies=lambda step: 0.2 + 1e-4 * step)
    assert seen(signs(), *good) == {}


def test_copies_that_stay_what_they_are_are_told_of_once_and_again_after_they_moved():
    def moved(step):
        return 300 <= step <= 500

    def size(step):
        return START * (20 if moved(step) else 1.2)

    # Their divergences are alike, too, which goes without saying.
    rows = run(gamma=size, beta=size, spread=lambda step: 0.3 if moved(step) else 1e-4)
    assert seen(signs(), *rows) == {'identity': [100, 520]}


def test_one_copy_or_beta_alone_that_moves_is_enough():
    assert seen(signs(), *run(gamma=START, beta=0.03)) == {}
    one = figures(gamma=START, beta=START) | {'train/street/gamma/02': 0.03}
    assert signs().look(200, one) == {}
    assert 'at most 0.005 and |beta| 0.005' in signs().look(200, figures(gamma=START, beta=START))['identity']


@pytest.mark.parametrize(('start', 'size', 'told'), [(0.5, 0.6, False), (0.0001, 0.005, True), (0.03, 0.05, True)])
def test_what_is_near_the_identity_depends_on_the_start_within_bounds(start, size, told):
    """A wide start is no identity; a tiny one that grew tenfold is still one."""
    assert ('identity' in signs(start=start).look(200, figures(gamma=size, beta=size))) == told


def test_noise_that_is_drawn_never_moves_and_is_no_identity():
    assert seen(signs(start=None), *run(gamma=START, beta=START)) == {}


def test_nothing_is_judged_before_the_warm_up_and_100_steps():
    bad = {'gamma': START, 'beta': START, 'top': 1.0, 'copies': 0.6}
    assert not seen(signs(warmup=200), *run(steps=299, every=10, **bad))
    assert seen(signs(warmup=200), (300, figures(**bad))) == {'identity': [300], 'street/noise': [300]}


@pytest.mark.parametrize(
    ('shown', 'words'),
    [
        ({'spread': 0.01}, 'differ by 1.0% of what they are'),
        ({'top': 0.99}, 'group.sensitivity is 1, so weights are alike. Lower it'),
        ({'spread': 0.01, 'top': 0.99}, '99% of them are at 0.9 to 1.0, and the divergences'),
    ],
)
def test_weights_that_tell_nothing(shown, words):
    (text,) = signs().look(200, figures(**shown)).values()
    assert text.startswith('street: the group weights tell no copy from another') and words in text
    assert seen(signs(), *run(**shown)) == {'street/alike': [100]}


def test_divergences_near_the_entropy_are_compared_by_what_they_have_beyond_it():
    """As cross-entropies of 0.2 they differ by a thousandth, and as what they say of the copies by a third."""
    assert figures(spread=0.3)['train/street/divergence_spread'] < 2e-3
    assert signs().look(200, figures(spread=0.3)) == {}
    alone = group_relative.GroupRelative(distance='kl')
    less = figures(spread=0.3) | {f'train/street/divergence/{i:02d}': 1e-3 for i in range(4)}
    kl = less | {'train/street/divergence_spread': 0.3}
    assert signs(watched={'group': alone}).look(200, kl) == {}
    assert list(signs(watched={'group': alone}).look(200, less)) == ['street/alike']


@pytest.mark.parametrize(('count', 'weighting'), [(1, 'group'), (4, 'none')])
def test_weights_that_are_meant_to_be_alike_are_no_sign(count, weighting):
    group = group_relative.GroupRelative(weighting=weighting)
    same = figures(top=1.0, spread=0.0, n=count)
    assert signs(copies=count, watched={'group': group}).look(200, same) == {}


def test_of_two_copies_it_is_said_why_they_weigh_the_same():
    two = figures(n=2, top=0.0) | {f'train/street/weights/{i / 10:.1f}': float(i == 6) for i in range(10)}
    (text,) = signs(copies=2).look(200, two).values()
    assert '100% of them are at 0.6 to 0.7' in text and 'film.count of 3 or more' in text


def test_copies_of_which_nothing_can_be_said_are_noise():
    assert seen(signs(), *run(copies=lambda step: 0.2 + 1e-3 * step)) == {'street/noise': [100]}
    # Certain originals, and copies nearly as certain: many times the entropy, and yet little.
    assert seen(signs(), *run(entropy=lambda step: 0.2 * 0.99**step, copies=lambda step: 0.2 * 0.992**step)) == {}
    # As sure as the originals, but of what is not so: while these are learned, the copies are not.
    assert seen(signs(), *run(wrong=BASE)) == {'street/noise': [420]}
    assert seen(signs(), *run(wrong=lambda step: 1.4 * falling(step))) == {}
    heavy = group_relative.GroupRelative(entropy=3.0)
    (text,) = signs(watched={'group': heavy}).look(200, figures()).values()
    assert 'the entropy term is 69% of the loss' in text and 'group.entropy nearer to 0 (it is 3)' in text
    large = signs(watched={'group': group_relative.GroupRelative(entropy=-3.0)})
    assert list(large.look(200, figures())) == ['street/noise']


def still(level):
    """A loss that falls for 150 steps and then stands at a share of what base rates cost."""
    return lambda step: max(falling(step) if step < 150 else 0.0, level * BASE)


@pytest.mark.parametrize(
    ('level', 'gap', 'told'), [(0.8, 0.01, True), (0.8, 0.2, False), (0.3, 0.01, False), (0.8, -0.05, True)]
)
def test_lora_underfits_where_the_loss_stands_high_and_the_gap_is_small(level, gap, told):
    rows = [(step, row | (evaluated(0.3, gap) if step % 100 == 0 else {})) for step, row in run(loss=still(level))]
    found = seen(signs(watched={'held': ('val',)}), *rows)
    assert found == ({'street/underfitting': [400]} if told else {})
    # Training and evaluation are logged one after the other, and read back together.
    apart = [(step, part) for step, row in rows for part in parted(row) if part]
    assert seen(signs(watched={'held': ('val',)}), *apart) == found


@pytest.mark.parametrize(('gap', 'words'), [(0.01, 'are 3.2% of their figure ahead'), (-0.01, 'are not ahead')])
def test_how_far_training_data_are_ahead_is_said(gap, words):
    watched = signs(watched={'held': ('val',)})
    found = [watched.look(step, row | evaluated(0.3, gap)) for step, row in run(loss=still(0.8))]
    (text,) = itertools.chain(*(each.values() for each in found))
    assert f'80% of what predicting base rates costs, and training data {words} of val. Try' in text


def parted(row):
    return [{key: value for key, value in row.items() if key.startswith(kind)} for kind in ('train/', 'eval/')]


def test_a_loss_that_still_falls_is_no_underfitting():
    rows = [(step, row | evaluated(0.3, 0.0)) for step, row in run(loss=lambda step: BASE * (1 - step / 2000))]
    assert seen(signs(watched={'held': ('val',)}), *rows) == {}


def test_without_a_gap_only_a_run_that_is_as_bad_as_base_rates_is_told_of():
    plain = [(step, {'train/street/loss': row['train/street/original']}) for step, row in run(loss=still(0.95))]
    watched = {'group': None}
    lora = {'copies': 0, 'start': None}
    assert seen(signs(**lora, watched=watched), *plain) == {'street/underfitting': [200]}
    better = [(step, {'train/street/loss': row['train/street/original']}) for step, row in run(loss=still(0.8))]
    assert seen(signs(**lora, watched=watched), *better) == {}
    assert seen(signs(**lora, watched=watched | {'base_rates': None}), *plain) == {}
    assert seen(signs(**lora | {'lora': False}, watched=watched), *plain) == {}


def test_what_looked_at_the_first_part_again_goes_on_as_if_it_had_not_stopped():
    rows = list(run(gamma=START, beta=START, copies=lambda step: 0.2 + 1e-3 * step, loss=still(0.95)))
    whole = signs()
    expected = [whole.look(*row) for row in rows]
    assert list(itertools.chain(*expected)) == ['identity', 'street/noise', 'street/underfitting']
    for cut in (4, 8, 20):
        again = signs()
        for row in rows[:cut]:
            again.look(*row)
        assert [again.look(*row) for row in rows[cut:]] == expected[cut:]


def test_figures_that_are_not_there_or_no_numbers_are_left_alone():
    assert signs().look(200, {'train/yard/loss': 1.0, 'eval/val/map': 0.3}) == {}
    assert signs(watched={'held': ('val',)}).look(200, figures() | evaluated(float('nan'), float('nan'))) == {}


def test_the_loss_is_the_sum_of_its_terms():
    terms = group_signs.loss_terms(figures(loss=0.1, entropy=0.2, copies=0.3), 'street', GROUP)
    assert terms == pytest.approx({'original': 0.1, 'copies': 0.07, 'distillation': 0.1005, 'entropy': 0.003})
