"""The shipped files joined into one that the renderer's training continues from."""

import numpy as np
import torch
import torch.nn.functional as F

from s2flib.datasets.faces import open_dataset
from s2flib.presets import TINY
from s2flib.synthfaces.causes import cause_names, causes
from s2flib.training.renderer_networks import RendererNetworks


def test_the_joined_renderer_draws_photos_from_their_causes(script):
    tensors = script("make_renderer").joined()
    nets = RendererNetworks(TINY, len(cause_names()), TINY.size).eval()
    w_avg = tensors.pop("w_avg")
    nets.load_state_dict(tensors)
    val = open_dataset("tiny", "val", limit=40)
    shots = [tuple(map(int, val.names[i].split("_"))) for i in range(0, 40, 5)]
    items = [val[i] for i in range(0, 40, 5)]
    known = torch.from_numpy(np.stack([causes(val.seed, person, shot) for person, shot in shots]))
    photo = torch.stack([s["photo"] for s in items])
    with torch.no_grad():
        w = nets.causes(known)
        y = nets.generator.synthesis(nets.generator.expand(w))
        codes, features = nets.encode(torch.stack([s["sketch"] for s in items]), w_avg)
        face = nets.generator.synthesis(codes, features=features)
    # blurred, but of these people: nearer to each one's own photo than to the next one's
    assert F.mse_loss(y, photo) < 0.5 * F.mse_loss(y, photo.roll(1, 0))
    assert F.mse_loss(face, photo) < 0.7 * F.mse_loss(face, photo.roll(1, 0))
