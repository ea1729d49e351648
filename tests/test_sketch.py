import cv2
import numpy as np
import pytest
import torch
from fake_faces import crude_face

from s2flib.errors import ImageError, S2FError
from s2flib.sketch import canny, gaussian_blur, noise_figure, sketch, sketch_stages

# --- the blur


def _hard_images(face, n=1024):
    """Two (n, n) uint8 images: quarters of noise, a step, checks and a real face; and all the light in a corner."""
    rng = np.random.default_rng(1)
    h = n // 2
    mixed = np.empty((n, n), np.uint8)
    mixed[:h, :h] = rng.integers(0, 256, (h, h))
    mixed[:h, h:] = np.where(np.arange(h) < 0.7 * h, 0, 255)
    mixed[h:, :h] = np.indices((h, h)).sum(0) // 97 % 2 * 255
    mixed[h:, h:] = cv2.resize(face, (h, h))[..., 1]
    corner = np.zeros((n, n), np.uint8)  # all of it at the mirrored border
    corner[: n // 25, -n // 25 :] = 255
    return mixed, corner


@pytest.mark.parametrize("sigma", [1, 9, 33.3, 128, 255])
def test_blur_equals_opencv_float(sigma, astronaut):
    for image in _hard_images(astronaut)[: 1 if sigma == 128 else 2]:
        expected = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma)
        got = gaussian_blur(image, sigma)
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() < 0.05  # 0.5 is the promise


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (2, 3), (60, 200), (97, 64, 3)])
def test_blur_of_odd_shapes_and_kernels_wider_than_the_image(shape):
    image = np.random.default_rng(2).integers(0, 256, shape).astype(np.float32)
    for sigma in (0.8, 7, 90):
        expected = cv2.GaussianBlur(image, (0, 0), sigma).reshape(shape)
        assert np.abs(gaussian_blur(image, sigma).reshape(shape) - expected).max() < 0.05


def test_blur_of_tensors_is_batched_and_differentiable():
    x = torch.rand(2, 3, 40, 56, dtype=torch.float64, requires_grad=True)
    for sigma in (0.7, 3.0, 25.0):
        y = gaussian_blur(x, sigma)
        assert y.shape == x.shape and y.dtype == x.dtype
        for b in range(2):
            for c in range(3):
                expected = cv2.GaussianBlur(x[b, c].detach().float().numpy(), (0, 0), sigma)
                assert np.abs(y[b, c].detach().numpy() - expected).max() < 2e-4
    gaussian_blur(x, 3.0)[1, 2, 20, 30].backward()  # the gradient is the kernel, on that channel
    assert x.grad[0].abs().sum() == 0 and x.grad[1, :2].abs().sum() == 0
    assert abs(x.grad.sum() - 1) < 1e-3 and x.grad[1, 2].argmax() == 20 * 56 + 30


@pytest.mark.parametrize("sigma", [0, -3, float("nan"), float("inf"), "wide", None])
def test_blur_refuses_other_sigmas(sigma):
    with pytest.raises(S2FError, match="sigma"):
        gaussian_blur(np.zeros((8, 8)), sigma)


# --- the sketch


def _paper_sketch(photo, mask, sigma):
    """Sec. 3.2 word by word with OpenCV in float64: an independent second way."""
    photo = photo.astype(np.float64).copy()
    photo[mask == 0] = 255
    g = 0.299 * photo[..., 0] + 0.587 * photo[..., 1] + 0.114 * photo[..., 2]
    dodge = np.clip(g * 256 / (255 - cv2.GaussianBlur(255 - g, (0, 0), sigma)), 0, 255)
    return (dodge - dodge.min()) / (dodge.max() - dodge.min()) * 255


@pytest.mark.parametrize("sigma", [None, 3, 40])
def test_sketch_is_the_papers_formula(sigma):
    photo, mask = crude_face()
    expected = _paper_sketch(photo, mask, 96 / 26.5 if sigma is None else sigma)
    got = sketch(photo, mask, sigma)
    assert got.shape == (96, 96) and got.dtype == np.uint8
    assert np.abs(got - expected).max() <= 0.6  # rounding to 8 bits
    assert (got[mask == 0] == 255).all() and got.min() == 0  # white ground, full range
    eye, cheek = got[40, 34].astype(int), got[55, 34].astype(int)
    assert eye < cheek - 60  # dark lines on light skin


def test_the_background_does_not_leak_into_the_sketch():
    photo, mask = crude_face(seed=0)
    other = photo.copy()
    other[mask == 0] = 17
    assert np.array_equal(sketch(photo, mask), sketch(other, mask))
    assert not np.array_equal(sketch(photo), sketch(other))  # without a mask it does


def _authors_sketch(photo, mask):
    """The published code's steps (utils/img2sketch.py) with OpenCV: black background, kernel h // 4 − 1 with σ = 0,
    divide with scale 256, white background at the end; then normalised as ours."""
    grey = np.where(mask == 0, 0, photo.astype(np.float64) @ [0.299, 0.587, 0.114])
    k = photo.shape[0] // 4 - 1
    sigma = 0.3 * ((k - 1) / 2 - 1) + 0.8  # OpenCV's choice for σ = 0
    dodge = np.clip(grey * 256 / np.maximum(255 - cv2.GaussianBlur(255 - grey, (0, 0), sigma), 1), 0, 255)
    dodge[mask == 0] = 255
    return (dodge - dodge.min()) / (dodge.max() - dodge.min()) * 255, sigma


def test_black_background_is_the_published_codes_sketch():
    photo, mask = crude_face()
    expected, sigma = _authors_sketch(photo, mask)
    got = sketch(photo, mask, sigma, background="black")
    assert np.abs(got - expected).max() <= 0.6
    x = torch.from_numpy(photo).permute(2, 0, 1).float() / 127.5 - 1
    tensor = sketch(x, torch.from_numpy(mask), sigma, background="black")
    assert np.abs(tensor[0].numpy() * 255 - got).max() < 0.51
    white = sketch(photo, mask, sigma)
    inner = cv2.dilate(255 * (mask == 0).astype(np.uint8), np.ones((5, 5))) > 0
    rim = inner & (mask != 0)
    assert got[rim].mean() > white[rim].mean() + 5  # the outline fades instead of being drawn
    assert (got[mask == 0] == 255).all()
    assert np.array_equal(sketch_stages(photo, mask, sigma, "black").sketch, got)
    assert (sketch_stages(photo, mask, sigma, "black").foreground[mask == 0] == 0).all()


@pytest.mark.parametrize("background", ["grey", "", None])
def test_other_backgrounds_are_refused(background):
    photo, mask = crude_face()
    for x in (photo, torch.zeros(3, 96, 96)):
        with pytest.raises(S2FError, match="white, black"):
            sketch(x, mask, background=background)


def test_masks_of_every_kind_mean_the_same():
    photo, mask = crude_face()
    expected = sketch(photo, mask)
    for same in (mask.astype(bool), mask * 255, mask * 13, mask.astype(np.int64)):
        assert np.array_equal(sketch(photo, same), expected)


def test_tensors_give_what_arrays_give():
    faces = [crude_face(seed=s) for s in (0, 1)]
    photos = torch.stack([torch.from_numpy(p).permute(2, 0, 1).float() / 127.5 - 1 for p, _ in faces])
    masks = torch.stack([torch.from_numpy(m) for _, m in faces])
    batch = sketch(photos, masks)
    assert batch.shape == (2, 1, 96, 96) and batch.min() == 0 and batch.max() == 1
    for b, (photo, mask) in enumerate(faces):
        assert np.abs(batch[b, 0].numpy() * 255 - sketch(photo, mask)).max() < 0.51
        assert torch.allclose(sketch(photos[b], masks[b]), batch[b], atol=1e-5)  # each normalised by itself
    assert sketch(photos[0].half(), masks[0]).dtype == torch.float16
    photos.requires_grad_()
    sketch(photos, masks).mean().backward()
    assert photos.grad.isfinite().all() and photos.grad.abs().sum() > 0
    assert (photos.grad[0][:, masks[0] == 0] == 0).all()


def test_stages_show_the_same_computation():
    photo, mask = crude_face()
    s = sketch_stages(photo, mask)
    assert np.array_equal(s.photo, photo) and np.array_equal(s.sketch, sketch(photo, mask))
    assert (s.foreground[mask == 0] == 255).all() and np.array_equal(s.foreground[mask > 0], photo[mask > 0])
    assert np.abs(s.grey.astype(int) - cv2.cvtColor(s.foreground, cv2.COLOR_RGB2GRAY)).max() <= 1
    assert np.abs(s.inverted.astype(int) + s.grey - 255).max() <= 1
    assert np.abs(s.blurred - cv2.GaussianBlur(s.inverted.astype(np.float32), (0, 0), 96 / 26.5)).max() < 1.1
    assert all(stage.dtype == np.uint8 for stage in s)


def test_a_blur_first_used_without_gradients_can_be_trained_through():
    with torch.inference_mode():
        gaussian_blur(torch.rand(23, 29), 3.21)  # sizes of no other test: their factors are kept
    x = torch.rand(23, 29, requires_grad=True)
    gaussian_blur(x, 3.21).square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


@pytest.mark.parametrize("value", [0, 7, 128, 255])
def test_flat_pictures_come_out_white(value):
    photo = np.full((32, 32, 3), value, np.uint8)
    assert (sketch(photo) == 255).all()
    tensor = torch.full((3, 32, 32), value / 127.5 - 1)
    assert (sketch(tensor) == 1).all()


def test_grey_arrays_and_black_surroundings():
    photo, mask = crude_face()
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(sketch(grey, mask), sketch(np.repeat(grey[..., None], 3, 2), mask))
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[:4, :4] = 255  # blur(g) is 0 far away: no division by zero
    assert np.isfinite(sketch(photo, sigma=2)).all() and sketch(photo, sigma=2)[0, 0] == 255


def test_wrong_input_is_one_sentence():
    photo, mask = crude_face()
    for bad in (photo / 255, photo[..., :2], np.zeros((0, 5, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)):
        with pytest.raises(ImageError):
            sketch(bad)
    with pytest.raises(ImageError, match="48×96 px but the photo 96×96"):
        sketch(photo, mask[:, :48])
    with pytest.raises(ImageError, match="to_photo"):
        sketch(torch.zeros(1, 8, 8))
    with pytest.raises(ImageError, match="mask"):
        sketch(torch.zeros(3, 8, 8), torch.zeros(9, 8))
    with pytest.raises(S2FError, match="sigma"):
        sketch(photo, mask, sigma=0)


# --- Canny and noise


def test_canny_finds_the_edges_of_the_foreground():
    photo, mask = crude_face()
    edges = canny(photo, mask)
    assert set(np.unique(edges)) == {0, 255} and edges.shape == (96, 96)
    outline = mask - cv2.erode(mask, np.ones((3, 3), np.uint8))
    near = cv2.dilate((edges == 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    assert near[outline > 0].mean() > 0.9
    far = cv2.dilate(mask, np.ones((7, 7), np.uint8)) == 0
    assert (edges[far] == 255).all()  # the noisy ground was masked before


def test_noise_figure_measures_what_it_says():
    """Maps of known noise-to-signal ratio: signal of variance 20², noise of deviation a·5."""
    rng = np.random.default_rng(3)
    photo = np.repeat(np.clip(rng.normal(128, 20, (128, 128)), 40, 215).astype(np.uint8)[..., None], 3, 2)

    def first_channel(p, mask):
        return p[..., 0].astype(float)

    expected = np.sqrt(25 + 1 / 12) / photo[..., 0].std()  # 1/12: rounding to 8 bits
    assert noise_figure(first_channel, photo) == pytest.approx(expected, rel=0.03)
    assert noise_figure(lambda p, m: 7 - 0.01 * first_channel(p, m), photo) == pytest.approx(expected, rel=0.03)
    assert noise_figure(first_channel, photo, noise=10) == pytest.approx(2 * expected, rel=0.03)
    # more draws do not bias it
    assert noise_figure(first_channel, photo, draws=3) == pytest.approx(expected, rel=0.03)
    assert noise_figure(lambda p, m: first_channel(photo, m), photo) == 0  # nothing changes
    flat = np.full_like(photo, 128)
    assert noise_figure(first_channel, flat) > 5  # nothing but noise
    half = np.zeros((128, 128), np.uint8)
    half[:, :64] = 1
    broken = photo.copy()
    broken[:, 64:] = 0  # outside: not counted
    assert noise_figure(first_channel, broken, half) == pytest.approx(
        np.sqrt(25 + 1 / 12) / photo[:, :64, 0].std(), rel=0.05
    )
    assert noise_figure(sketch, *crude_face()) == noise_figure(sketch, *crude_face())  # seeded


def test_the_papers_claim_canny_is_noisier(astronaut):
    """On a real face, at every usual pair of thresholds."""
    face = astronaut[0:256, 96:352]
    pencil = noise_figure(sketch, face)
    for low, high in ((20, 60), (50, 100), (100, 200), (150, 300)):

        def edges(photo, mask, low=low, high=high):
            return canny(photo, mask, low, high)

        assert noise_figure(edges, face) > 1.5 * pencil
