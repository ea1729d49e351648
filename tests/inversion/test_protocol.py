"""What all inversion methods share: photos they take, the trace, generators with weights of their own."""

import copy

import pytest
import torch
from inversion_cases import SIZE, WRONG

from s2flib.errors import ImageError
from s2flib.inversion.protocol import Inversion, Recorder, check_photos, pooled, recorded_steps, synthesise


@pytest.mark.parametrize("wrong", WRONG)
def test_photos_that_are_refused(wrong, photos):
    with pytest.raises(ImageError, match=r"square photos|values from -1 to 1"):
        check_photos(WRONG[wrong](photos))


def test_photos_slightly_out_of_range(photos):
    with pytest.raises(ImageError, match="values from -1 to 1"):
        check_photos(photos / photos.abs().max() * 1.05)


def test_photos_as_float_without_gradients(photos):
    for same in (photos.double().requires_grad_(), photos * 1.005):  # rounding may exceed the range a little
        checked = check_photos(same)
        assert checked.dtype == torch.float32 and not checked.requires_grad
        torch.testing.assert_close(checked, same.detach().float())


def test_pooling():
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(pooled(x, 4), x.reshape(2, 3, 4, 3, 4, 3).mean((3, 5)))
    assert pooled(x, 12) is x and pooled(x, 64) is x


def test_each_photo_has_its_own_weights_and_noise(generator, photos):
    """Against copies of the generator in which the tensors were replaced; the shared one stays as it is."""
    before = copy.deepcopy(generator.state_dict())
    w = generator.expand(generator.random_codes(2, 5))
    own = [
        {"convs.1.conv.weight": generator.convs[1].conv.weight * 1.5, "noises.noise_2": torch.randn(1, 1, 8, 8)},
        {"to_rgbs.0.bias": torch.full_like(generator.to_rgbs[0].bias, 0.25)},
    ]
    made = synthesise(generator, w, own)
    for i, replaced in enumerate(own):
        changed = copy.deepcopy(generator)
        changed.load_state_dict(dict(changed.state_dict()) | replaced)
        torch.testing.assert_close(made[i : i + 1], changed.synthesis(w[i : i + 1]))
    assert torch.equal(synthesise(generator, w), generator.synthesis(w))
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    found = Inversion(generator, w, made, (), 0.0, tuple(own))
    torch.testing.assert_close(found.generate(), made)
    other = generator.expand(generator.random_codes(2, 6))
    assert torch.equal(found.generate(other), synthesise(generator, other, own)) and not found.generate().requires_grad


def test_gradients_flow_into_weights_and_codes(generator):
    w = generator.expand(generator.random_codes(1, 5)).clone().requires_grad_()
    weight = generator.convs[0].conv.weight.detach().clone().requires_grad_()
    synthesise(generator, w, [{"convs.0.conv.weight": weight}]).square().sum().backward()
    assert w.grad.abs().sum() > 0 and weight.grad.abs().sum() > 0 and generator.convs[0].conv.weight.grad is None


def test_the_trace(generator, photos):
    called = []
    recorder = Recorder(photos, SIZE // 2, called.append)
    pictures = [torch.randn(3, 3, SIZE, SIZE, requires_grad=True) for _ in range(2)]
    for step, picture in zip((0, 4), pictures, strict=True):
        recorder.record(step, picture)
    found = recorder.finish(generator, torch.zeros(3, 6, 32, requires_grad=True), pictures[1])
    assert list(found.trace) == called and [s.step for s in called] == [0, 4]
    assert 0 <= called[0].seconds <= called[1].seconds <= found.seconds
    for step, picture in zip(called, pictures, strict=True):
        half = [x.reshape(3, 3, SIZE // 2, 2, SIZE // 2, 2).mean((3, 5)) for x in (picture, photos)]
        torch.testing.assert_close(step.error, (half[0] - half[1]).square().mean((1, 2, 3)).detach())
        assert torch.equal(step.reconstruction, picture) and not step.reconstruction.requires_grad
    assert not found.w_plus.requires_grad and not found.reconstruction.requires_grad


def test_photos_smaller_than_the_losses_size(photos):
    """They are compared at their own size, also with larger pictures."""
    recorder = Recorder(photos, 64)
    recorder.record(0, photos.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert recorder.steps[0].error.max() < 1e-10
    large = Recorder(photos.repeat_interleave(2, 2).repeat_interleave(2, 3), 64)
    large.record(0, photos)
    assert large.steps[0].error.max() < 1e-10


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 100, 5000])
def test_recorded_steps(steps):
    found = sorted(recorded_steps(steps))
    assert found[0] == 0 and found[-1] == steps and len(found) <= 9
    gaps = [b - a for a, b in zip(found, found[1:], strict=False)]
    if steps >= 100:
        assert gaps == sorted(gaps) and len(found) == 9
