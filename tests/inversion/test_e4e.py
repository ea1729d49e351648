"""e4e: codes of its encoder, its losses against formulas written out, the critic and its memory."""

import pytest
import torch
from inversion_networks import DIM, MINI, SIDE, STYLES, made_photos, small_generator, untrained
from torch import nn

from s2flib.inversion.e4e import (
    CodePool,
    Encoder4Editing,
    LatentCritic,
    add_offsets,
    adversarial_loss,
    critic_loss,
    delta_loss,
    r1_penalty,
    stage_of,
)
from s2flib.inversion.encoder import EncoderInversion
from s2flib.psp import GradualStyleEncoder


def test_offsets_are_added_to_the_first_row_up_to_the_stage():
    heads = torch.randn(2, 6, 3)
    for stage in range(6):
        codes = add_offsets(heads, stage)
        for b in range(2):
            for row in range(6):
                expected = heads[b, 0] if row == 0 or row > stage else heads[b, 0] + heads[b, row]
                assert torch.equal(codes[b, row], expected), (stage, row)


def test_only_offsets_in_use_get_gradients():
    heads = torch.randn(2, 6, 3, requires_grad=True)
    add_offsets(heads, 2).sum().backward()
    assert heads.grad[:, 0].eq(6).all() and heads.grad[:, 1:3].eq(1).all() and heads.grad[:, 3:].eq(0).all()


def test_encoder_is_psps_with_offsets():
    """The same weights as a pSp encoder, whose rows are then w and offsets."""
    s = MINI.inversion
    shape = (3, STYLES, DIM, s.units, s.widths, s.head, s.size)
    e4e, psp = Encoder4Editing(*shape).eval(), GradualStyleEncoder(*shape).eval()
    psp.load_state_dict(e4e.state_dict())
    x = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        heads = psp(x)
        assert e4e.stage == STYLES - 1
        torch.testing.assert_close(e4e(x), torch.cat([heads[:, :1], heads[:, :1] + heads[:, 1:]], 1))
        e4e.stage = 0
        torch.testing.assert_close(e4e(x), heads[:, :1].expand(-1, STYLES, -1))
        torch.testing.assert_close(e4e.codes_and_features(x)[0], heads[:, :1].expand(-1, STYLES, -1))


def test_stages_of_the_published_schedule():
    """progressive_steps = [0, 20000, 22000, …] for 18 styles: stage i from progressive_steps[i] on."""
    starts = [0] + [20_000 + 2_000 * i for i in range(17)]
    for step in [0, 1, 19_999, 20_000, 21_999, 22_000, 30_001, 51_999, 52_000, 52_001, 200_000]:
        expected = max(i for i, start in enumerate(starts) if step >= start)
        assert stage_of(step, 20_000, 2_000, 18) == expected
    assert [stage_of(step, 0, 3, 4) for step in range(10)] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3]


def test_delta_loss():
    w = torch.randn(3, 5, 4)
    expected = sum(((w[b, i] - w[b, 0]) ** 2).sum() ** 0.5 for b in range(3) for i in range(1, 5)) / 3
    torch.testing.assert_close(delta_loss(w), expected)
    same = torch.ones(2, 5, 4, requires_grad=True)  # without offsets: zero, and a gradient that is no NaN
    loss = delta_loss(same)
    loss.backward()
    assert loss < 1e-4 and same.grad.isfinite().all()


def test_critic_losses():
    """Non-saturating: −log σ(D(row)) for the encoder; −log σ(D(real)) − log(1 − σ(D(row))) for the critic."""
    torch.manual_seed(0)
    critic = LatentCritic(4).eval()
    w_plus, mapped = 3 * torch.randn(2, 5, 4), 3 * torch.randn(6, 4)
    with torch.no_grad():
        rows = torch.sigmoid(critic(w_plus.reshape(10, 4)))
        torch.testing.assert_close(adversarial_loss(critic, w_plus), -rows.log().mean())
        expected = -torch.sigmoid(critic(mapped)).log().mean() - (1 - rows).log().mean()
        torch.testing.assert_close(critic_loss(critic, mapped, w_plus.flatten(0, 1)), expected)
    assert critic(mapped).shape == (6, 1) and len(critic.layers) == 5


def test_the_critics_loss_has_no_gradient_for_the_encoder():
    critic, rows = LatentCritic(4), torch.randn(3, 4, requires_grad=True)
    critic_loss(critic, torch.randn(3, 4), rows).backward()
    assert rows.grad is None and all(p.grad is not None for p in critic.parameters())


def test_critic_learns_to_tell_codes_apart():
    torch.manual_seed(1)
    critic = LatentCritic(4)
    optimiser = torch.optim.Adam(critic.parameters(), 0.02)
    mapped, encoded = torch.randn(64, 4), torch.randn(64, 4) + 2
    for _ in range(40):
        optimiser.zero_grad()
        critic_loss(critic, mapped, encoded).backward()
        optimiser.step()
    assert (critic(mapped) > 0).float().mean() > 0.85 and (critic(encoded) < 0).float().mean() > 0.85


def test_r1_penalty():
    """Against a linear critic, whose gradient is its weight, and against finite differences."""
    linear = nn.Linear(3, 1)
    torch.testing.assert_close(r1_penalty(linear, torch.randn(5, 3)), linear.weight.square().sum())
    critic, w, eps = LatentCritic(3, 2).double(), torch.randn(4, 3).double(), 1e-5
    expected = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for i in range(4):
            for j in range(3):
                e = torch.zeros(1, 3, dtype=torch.float64)
                e[0, j] = eps
                expected += ((critic(w[i : i + 1] + e) - critic(w[i : i + 1] - e)) / (2 * eps)).square().sum()
    penalty = r1_penalty(critic, w)
    torch.testing.assert_close(penalty, expected / 4, rtol=1e-5, atol=0)
    penalty.backward()
    assert all(p.grad is not None for n, p in critic.named_parameters() if n.endswith("weight"))


def test_pool_returns_half_old_codes():
    """The first ``size`` codes come back; then half are replaced by earlier ones, which leave the pool."""
    torch.manual_seed(0)
    pool, seen = CodePool(50, 1), []
    first = torch.arange(50.0)[:, None]
    assert torch.equal(pool.exchange(first), first) and len(pool.codes) == 50
    old = 0
    for k in range(1, 9):
        new = torch.arange(50.0)[:, None] + 50 * k
        out = pool.exchange(new)
        assert out.shape == new.shape and len(pool.codes) == 50
        replaced = out != new
        old += int(replaced.sum())
        assert (out[replaced] < new[replaced[:, 0], 0]).all()
        seen += out.flatten().tolist()
    assert 0.4 < old / 400 < 0.6
    kept = pool.codes.flatten().tolist()
    assert sorted(kept + seen) == [float(i) for i in range(450)], "every code is kept or has been returned, once"


def test_a_pool_of_nothing_and_a_saved_pool():
    codes = torch.randn(5, 3, requires_grad=True)
    none = CodePool(0, 3).exchange(codes)
    assert torch.equal(none, codes) and not none.requires_grad
    pool, again = CodePool(3, 3), CodePool(3, 3)
    pool.exchange(codes)
    again.load_state_dict(pool.state_dict())  # a copy: codes are replaced in place
    for seed in range(3):
        torch.manual_seed(seed)
        one = pool.exchange(codes * seed)
        torch.manual_seed(seed)
        assert torch.equal(one, again.exchange(codes * seed)) and torch.equal(pool.codes, again.codes)


@pytest.mark.parametrize("name", ["psp", "e4e"])
def test_inversion_in_one_pass(name):
    """w+ = E(photo) + w̄; the trace is w̄'s face and the result, its errors at the losses' size."""
    generator = small_generator()
    model, photos, called = untrained(name, generator), made_photos(generator, 3, 9), []
    found = EncoderInversion(name, model, 16).invert(photos, called.append)
    with torch.no_grad():
        w_plus = model.encoder(photos) + generator.latent_avg
        pictures = [generator.synthesis(w) for w in (generator.latent_avg.expand(3, STYLES, -1), w_plus)]
    torch.testing.assert_close(found.w_plus, w_plus)
    torch.testing.assert_close(found.reconstruction, pictures[1])
    assert (w_plus - generator.latent_avg).abs().mean() > 0.05 and found.weights is None
    assert [s.step for s in found.trace] == [0, 1] and list(found.trace) == called
    for step, picture in zip(found.trace, pictures, strict=True):
        torch.testing.assert_close(step.reconstruction, picture)
        small = [x.reshape(3, 3, 16, 2, 16, 2).mean((3, 5)) for x in (picture, photos)]
        torch.testing.assert_close(step.error, (small[0] - small[1]).square().mean((1, 2, 3)))
    with pytest.raises(ValueError, match="photos"):
        model.encoder.input_nc = 1
        EncoderInversion(name, model, 16)
