"""Clips of a long video, one chunk after the other: the same numbers, and what the backward pass keeps of it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.ad_checkpoint import saved_residuals

from vidloc.models import clip_loop, localizer, losa, preprocess, videomae

FRAMES, TOKENS = 4, 2
BACKBONE = videomae.VideoMAE(width=16, mlp=24, heads=2, layers=4, grid=(2, 2, 2), patch=(4, 4))
LOSA = losa.LoSA(width=16, depth=4, tokens=TOKENS, adapter_width=8, heads=2, gating='random')


class Linear(nn.Module):
    """A head that reads every token in time."""

    @nn.compact
    def __call__(self, features, batch, *, train):
        assert features.grid.shape[2:4] == (1, 1)
        return nn.Dense(3)(features.grid[:, :, 0, 0]) * features.valid[..., None]


def model(side=LOSA, backbone=BACKBONE, *, chunk=1, memory='remat_clips', still=True, side_pixels=8):
    side = side and side.clone(memory=memory)
    loop = clip_loop.Clips(FRAMES, chunk, memory)
    return localizer.Localizer(backbone, {'a': Linear()}, preprocess.Preprocess(), side, loop, still)


def batch(frames=16, *, size=2, pixels=8, valid=None):
    video = np.random.default_rng(0).integers(0, 256, (size, frames, pixels, pixels, 3), dtype=np.uint8)
    shown = np.ones((size, frames), bool) if valid is None else np.arange(frames) < np.array(valid)[:, None]
    return {'video': jnp.asarray(video), 'frame_valid': jnp.asarray(shown), 'seed': jnp.arange(size, dtype=jnp.uint32)}


@functools.cache
def started(side=LOSA, backbone=BACKBONE):
    """Parameters that no default start hides anything in."""
    shapes = jax.eval_shape(lambda key: localizer.init(model(side, backbone), key, {'a': batch()}), jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)


def run(model, params, batch, *, train=False, **options):
    return jax.jit(lambda params: model.apply({'params': params}, {'a': batch}, train=train, **options)['a'])(params)


def test_clips_are_seen_alone_and_stand_one_after_another():
    given, params = batch(valid=(16, 10)), started(None)
    bound = {'params': params['backbone']}
    video = preprocess.Preprocess()(given['video'], given['frame_valid'], given['seed'], train=False)
    wanted, valid = [], []
    for first in range(0, 16, FRAMES):
        shown = given['frame_valid'][:, first : first + FRAMES]
        found = BACKBONE.apply(
            bound, video[:, first : first + FRAMES], shown | ~shown.any(1, keepdims=True), train=False
        )
        wanted.append(found.grid.mean(axis=(2, 3)))
        valid.append(found.valid & shown.any(1, keepdims=True))
    for chunk in (1, 2, 8):
        localized = model(None, chunk=chunk)
        got = jax.jit(lambda params, m=localized: m.apply({'params': params}, given, train=False, method='encode'))(
            params
        )
        np.testing.assert_allclose(got.grid[:, :, 0, 0], np.concatenate(wanted, axis=1), atol=1e-5)
        np.testing.assert_array_equal(got.valid, np.concatenate(valid, axis=1))
    assert got.valid.tolist() == [[True] * 8, [True] * 5 + [False] * 3]


def test_what_is_padding_changes_nothing():
    given = batch(valid=(16, 10))
    other = dict(given, video=given['video'].at[1, 10:].set(255 - given['video'][1, 10:]))
    params = started()
    np.testing.assert_allclose(run(model(), params, given), run(model(), params, other), atol=1e-6)


def test_all_policies_give_the_same_outputs_and_gradients():
    side = LOSA
    params, given = started(side), batch()

    def gradients(memory, chunk):
        def loss(own):
            return jnp.sum(
                model(side, memory=memory, chunk=chunk).apply({'params': {**params, **own}}, {'a': given}, train=True)[
                    'a'
                ]
                ** 2
            )

        return jax.jit(jax.value_and_grad(loss))({'side': params['side'], 'heads_a': params['heads_a']})

    loss, wanted = gradients('store', 1)
    for memory, chunk in (('remat_adapters', 1), ('remat_clips', 2)):
        found, got = gradients(memory, chunk)
        np.testing.assert_allclose(found, loss, rtol=1e-5)
        for leaf, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=2e-4, atol=1e-5 * np.abs(other).max() + 1e-7)


def test_nothing_reaches_the_backbone_through_an_adapter_and_all_of_it_without():
    params, given = started(), batch()

    def slope(localized, params):
        return jax.grad(lambda own: jnp.sum(run(localized, {**params, 'backbone': own}, given) ** 2))(
            params['backbone']
        )

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope(model(), params)))
    moved = slope(model(None, still=False), started(None))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(moved))


def test_a_backbone_that_trains_draws_anew_in_every_clip_and_a_frozen_one_never():
    dropping = BACKBONE.clone(drop_path=0.9)
    params = started(None, dropping)
    same = batch()
    same['video'] = jnp.tile(same['video'][:, :FRAMES], (1, 4, 1, 1, 1))
    rngs = {'dropout': jax.random.key(5)}
    drawn = run(model(None, dropping, still=False), params, same, train=True, rngs=rngs)
    first, second = np.asarray(drawn[:, :TOKENS]), np.asarray(drawn[:, TOKENS : 2 * TOKENS])
    assert np.abs(first - second).max() > 1e-3
    still = run(model(None, dropping), params, same, train=True, rngs=rngs)
    np.testing.assert_allclose(still, run(model(None, dropping), params, same), atol=1e-6)


def test_computed_features_take_the_place_of_the_video():
    side = LOSA.clone(spatial='pool')
    params, given = started(side), batch(valid=(16, 10))
    loop = model(side)
    taken = localizer.Localizer(BACKBONE, {'a': Linear()}, preprocess.Preprocess(), side, loop.clips, True)

    def cached(params):
        encoded = clip_loop.encode(
            BACKBONE, params['backbone'], loop.preprocess, loop.clips, given,
            loop.bind({'params': params})._tap(), train=False, alone=False, key=None,
        )  # fmt: skip
        return {
            'sequence': encoded.last, 'sequence_valid': encoded.valid, 'layers': jnp.moveaxis(encoded.reduced, 0, 1)
        }  # fmt: skip

    np.testing.assert_allclose(run(taken, params, cached(params)), run(loop, params, given), atol=1e-5)
    # The files hold every layer, whichever an adapter takes.
    some = side.clone(layers=(2,))
    fewer = {**started(some), 'backbone': params['backbone']}
    from_file, from_video = (run(m.clone(side=some), fewer, b) for m, b in ((taken, cached(params)), (loop, given)))
    np.testing.assert_allclose(from_file, from_video, atol=1e-5)
    with pytest.raises(ValueError, match='needs the layers it taps'):
        run(taken, params, {name: value for name, value in cached(params).items() if name != 'layers'})


@pytest.mark.parametrize(
    ('frames', 'chunk', 'message'),
    [(18, 1, 'a video of 18 frames does not split into clips of 4'), (12, 2, '3 clips do not split into chunks of 2')],
)
def test_videos_that_do_not_split_are_refused(frames, chunk, message):
    with pytest.raises(ValueError, match=message):
        run(model(chunk=chunk), started(), batch(frames))
    with pytest.raises(ValueError, match=r"clips\.memory is 'keep'; it must be one of remat_clips"):
        clip_loop.Clips(memory='keep')


# What the backward pass keeps. The maps are made large beside all else: image 64, patch 8, six layers of width 64.
DEEP = videomae.VideoMAE(width=64, mlp=128, heads=4, layers=6, grid=(8, 8, 8), patch=(8, 8))
BESIDE = losa.LoSA(width=64, depth=6, tokens=8, adapter_width=32, heads=4)


def deep(memory):
    side = BESIDE.clone(memory=memory)
    return localizer.Localizer(
        DEEP, {'a': Linear()}, preprocess.Preprocess(), side, clip_loop.Clips(16, 1, memory), True
    )


def shapes(frames):
    of = jax.ShapeDtypeStruct
    return {
        'video': of((1, frames, 64, 64, 3), jnp.uint8),
        'frame_valid': of((1, frames), jnp.bool_),
        'seed': of((1,), jnp.uint32),
    }


def loss_of(memory, frames):
    """(loss(trained, frozen, batch), their shapes)"""
    localized = deep(memory)
    given = shapes(frames)
    params = dict(jax.eval_shape(lambda key: localizer.init(localized, key, {'a': given}), jax.random.key(0)))
    frozen = {'backbone': params.pop('backbone')}

    def loss(trained, frozen, batch):
        return jnp.sum(localized.apply({'params': {**trained, **frozen}}, {'a': batch}, train=True)['a'] ** 2)

    return loss, (params, frozen, given)


def temporary_bytes(memory, frames):
    loss, given = loss_of(memory, frames)
    compiled = jax.jit(jax.grad(loss)).lower(*given).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_saved_residuals_hold_no_map_unless_they_are_kept():
    """One layer's map of the video is 4 clips of 8 x 8 x 8 tokens of width 64, however its axes are cut."""

    def maps(memory):
        loss, given = loss_of(memory, 64)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), given)
        saved = saved_residuals(lambda trained: loss(trained, *zeros[1:]), zeros[0])
        return [aval.shape for aval, _ in saved if aval.size >= 4 * 8 * 8 * 8 * 64 and aval.dtype == jnp.float32]

    assert maps('remat_clips') == []
    assert sum(np.prod(shape) for shape in maps('remat_adapters')) >= 6 * 4 * 8 * 8 * 8 * 64


def test_memory_grows_with_the_reduced_features_alone():
    """From 64 to 256 frames one layer's map grows by 12 clips; with the maps kept, all layers' do."""
    growth = {
        memory: temporary_bytes(memory, 256) - temporary_bytes(memory, 64)
        for memory in ('remat_clips', 'remat_adapters')
    }
    one_map = 12 * 8 * 8 * 8 * 64 * 4
    assert growth['remat_clips'] < one_map / 4
    assert growth['remat_adapters'] > 6 * one_map
