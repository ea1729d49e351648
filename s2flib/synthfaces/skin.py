"""Skin material: tone, blood, freckles, pores and wrinkles, lips, brows, stubble, make-up, scalp and cloth.

``Surface`` holds the shading inputs per pixel. Smooth quantities are stored at the vertices and interpolated;
sharp ones (lips, lids, brows) are evaluated per pixel on canonical coordinates, so they follow every morph and
expression.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from s2flib.synthfaces import hair, noise, regions
from s2flib.synthfaces.camera import Camera
from s2flib.synthfaces.colours import skin_rgb
from s2flib.synthfaces.mesh import smoothstep, unit
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.raster import Hits

# absorption by blood and pigment, per colour (optical density)
_BLOOD = np.array([0.02, 0.30, 0.24], np.float32)
_SHADE = np.array([0.20, 0.32, 0.30], np.float32)
_FRECKLE = np.array([0.25, 0.6, 0.8], np.float32)
# columns of the vertex table
_CANON, _OCCLUSION, _SCALP, _STUBBLE, _NECK, _NOSE, _HAIRLINE = slice(0, 3), 3, 4, 5, 6, 7, 8


class Surface(NamedTuple):
    """Properties of the n pixels that show the skin mesh."""

    canonical: np.ndarray  # (n, 3) position on the neutral head
    albedo: np.ndarray  # (n, 3) linear RGB
    gloss: np.ndarray  # (n,)
    height: np.ndarray  # (n,) dm, bumps
    open_sky: np.ndarray  # (n,) 1 − occlusion
    lips: np.ndarray  # (n,) 0…1, also the following
    ears: np.ndarray
    inside: np.ndarray
    brow: np.ndarray
    scalp: np.ndarray
    cloth: np.ndarray  # (n,) signed dm, > 0 is cloth
    necklace: np.ndarray
    neck: np.ndarray
    nose: np.ndarray


def _vertex_table(person: Person) -> np.ndarray:
    """(V, 9) float32 values to interpolate: canonical xyz, open sky, scalp, stubble, neck, nose, hairline."""
    head, look = person.head, person.look
    zones = regions.beard_zones(head)
    stubble = hair.beard_density(head, look) * 0.85
    if look.beard != "none":
        stubble = np.maximum(stubble, 0.3 * np.maximum(zones["jaw"], zones["moustache"]))
    elif person.identity.male > 0.5:
        stubble = 0.13 * np.maximum(zones["jaw"], zones["moustache"])
    scalp = hair.scalp_density(head, person.identity, look)
    areas = regions.is_neck(head), regions.is_nose(head), regions.above_hairline(head)
    return np.column_stack([head.smooth, head.occlusion, scalp, stubble, *areas]).astype(np.float32)


def surface(person: Person, hits: Hits, which: np.ndarray) -> Surface:
    """Evaluates the skin at the hits ``which``."""
    head, identity, look = person.head, person.identity, person.look
    v = hits.gather(_vertex_table(person), head.tris, which)
    canon = v[:, _CANON]
    uv = np.einsum("nkc,nk->nc", head.uv[hits.triangle[which]], hits.weights[which])
    lips, ears, lids, inside = _read_masks(head.masks, uv).T
    y, z = canon[:, 1], canon[:, 2]
    ox, oy = identity.seed % 509, identity.seed // 512 % 509
    broad = noise.sample(1.6, uv[:, 0] * 900 + ox, uv[:, 1] * 900 + oy, smooth=True)
    middle = noise.sample(1.6, uv[:, 0] * 2600 + oy, uv[:, 1] * 2600 + ox)
    fine = noise.sample(1.0, uv[:, 0] * 3500 + oy, uv[:, 1] * 3500 + ox)

    base = skin_rgb(identity.tone).astype(np.float32)
    light_skin = 1 - identity.tone / 7
    blood = 0.75 * regions.blob(canon, 0.40, 6.93, 0.20, 0.16) + 0.75 * regions.blob(canon, 0, 6.93, 0.13, 0.12)
    blood = blood + 0.3 * regions.blob(canon, 0, 6.3, 0.2, 0.12) + 0.7 * ears
    blood = blood + 0.2 * regions.blob(canon, 0.1, 7.45, 0.3, 0.1) - 0.25 * regions.blob(canon, 0, 7.8, 0.5, 0.25)
    blood = blood * (0.7 + 0.15 * identity.redness) + 0.13 * broad + 0.06 * middle
    albedo = base * np.exp(0.045 * broad + 0.04 * fine)[:, None]
    albedo = albedo * np.exp(-np.clip(blood, -0.5, 1.3)[:, None] * _BLOOD * (0.4 + 0.6 * light_skin))
    tired = 0.32 + 0.5 * smoothstep(40, 72, np.float32(identity.age))
    under_eyes = regions.blob(canon, 0.30, 7.15, 0.15, 0.05) * tired
    under_eyes = under_eyes + regions.blob(canon, 0.165, 7.24, 0.05, 0.09) * 0.5
    albedo = albedo * np.exp(-(under_eyes + 0.18 * lids)[:, None] * _SHADE)
    if identity.freckles > 0:
        spots = smoothstep(1.2, 1.9, fine + 0.25 * middle) * np.exp(-(((y - 7.02) / 0.28) ** 2)) * (z > 0.7)
        albedo = albedo * np.exp(-spots[:, None] * (identity.freckles * _FRECKLE))
    albedo = _moles(albedo, canon, identity.seed)
    albedo, gloss_makeup = _makeup(albedo, canon, lids, look.makeup, identity.male)
    albedo = _lips(albedo, base, canon, lips, middle, identity.tone, look)
    mouth = smoothstep(0.3, 0.8, inside)[:, None]
    albedo = albedo * (1 - 0.8 * mouth) + np.array([0.09, 0.018, 0.016], np.float32) * (0.8 * mouth)

    hair_rgb = np.array(identity.hair_rgb, np.float32)
    stubble = np.clip(v[:, _STUBBLE] * (0.42 + 0.16 * fine), 0, 0.7)
    albedo = _over(albedo, hair_rgb * 0.7 + 0.004, stubble)
    brow, stroke = _brows(canon, identity, ox)
    albedo = _over(albedo, _brow_rgb(identity), brow * stroke)
    buzz = look.style == "buzz"
    scalp = np.sqrt(v[:, _SCALP]) * (0.5 if buzz else 0.86) * (1 + 0.25 * fine * buzz)
    shade = 0.6 if buzz else 0.4
    albedo = _over(albedo, person.hair_rgb * shade, np.clip(scalp * 1.12 - 0.07, 0, 0.95))
    if look.style == "bald" and identity.male > 0.5:
        shaved = 0.16 * smoothstep(0, 0.25, v[:, _HAIRLINE]) * smoothstep(8.25, 7.6, y)
        albedo = _over(albedo, hair_rgb, shaved)

    clothes = look.clothes
    cloth = regions.above_collar(canon, clothes.height, clothes.depth, clothes.width).astype(np.float32)
    covered = smoothstep(-0.006, 0.006, cloth)
    albedo = albedo * (1 - 0.4 * np.exp(-((np.minimum(cloth, 0) / 0.035) ** 2)) * (cloth < 0))[:, None]
    albedo = _over(albedo, _cloth_albedo(clothes, canon, cloth, broad), covered)
    chain = np.zeros_like(cloth)
    if look.necklace:
        line = regions.above_collar(canon, 5.98, 0.22, 0.22) * (z > 0.2)
        chain = np.exp(-((line / 0.012) ** 2)) * (1 - covered) * (z > 0.2) * (y < 6.05)
        albedo = _over(albedo, np.array(look.metal_rgb, np.float32), chain)

    oily = 0.36 + 0.18 * regions.blob(canon, 0, 7.0, 0.13, 0.25) + 0.08 * regions.blob(canon, 0, 7.75, 0.32, 0.2)
    oily = oily + lips * (0.3 + 0.5 * look.makeup) + 0.05 * middle + gloss_makeup
    gloss = oily * (1 - 0.9 * v[:, _SCALP]) * (1 - 0.85 * covered) * (1 - 0.5 * stubble) + 4 * chain
    height = _bumps(canon, lips, stubble, broad, middle, fine, identity.age)
    height = height * (1 - covered) + covered * 0.004 * middle
    open_sky = np.clip(v[:, _OCCLUSION], 0.02, 1) ** 1.35
    gloss = np.clip(gloss, 0, 5)
    scalp, neck, nose = v[:, _SCALP], v[:, _NECK], v[:, _NOSE]
    properties = canon, albedo, gloss, height, open_sky, lips, ears, inside, brow, scalp, cloth, chain, neck, nose
    return Surface(*properties)


def _brow_rgb(identity) -> np.ndarray:
    """The hair colour, but darker, less red and less grey."""
    rgb = np.array(identity.hair_rgb, np.float32)
    share = {"platinum": 0.26, "blond": 0.33, "lightbrown": 0.5, "white": 0.28, "grey": 0.24, "red": 0.6}
    rgb = rgb * share.get(identity.hair_color, 0.7)
    warm = rgb.mean() * np.array([1.18, 0.98, 0.84], np.float32)
    return 0.5 * rgb + 0.5 * warm + 0.03 * skin_rgb(identity.tone).astype(np.float32)


def _cloth_albedo(clothes, canon: np.ndarray, cloth: np.ndarray, broad: np.ndarray) -> np.ndarray:
    """Fabric with weave, stripes or knitted ribs, a hem and soft folds."""
    rgb = np.array(clothes.rgb, np.float32)
    detail = 0.05 * noise.sample(0.5, canon[:, 0] * 260, canon[:, 1] * 260) + 0.10 * broad
    if clothes.pattern == "knit":
        detail = detail + 0.16 * np.sin(canon[:, 0] * 95) * np.sin(canon[:, 1] * 60 + 3 * np.sin(canon[:, 0] * 95))
    out = rgb * np.exp(detail - 0.45 * np.exp(-(((cloth - 0.035) / 0.008) ** 2)))[:, None]
    if clothes.pattern == "stripes":
        band = smoothstep(-0.15, 0.15, np.sin(canon[:, 1] * 38))
        out = _over(out, np.array(clothes.second_rgb, np.float32) * np.exp(detail)[:, None], band)
    if clothes.collar:
        out = out * (1 - 0.45 * np.exp(-(((cloth - 0.16) / 0.01) ** 2)))[:, None]
    return out


def bumped(normals: np.ndarray, height: np.ndarray, pixel: np.ndarray, camera: Camera) -> np.ndarray:
    """Normals tilted by the screen-space slope of the height field, by at most about 17°."""
    size = camera.width
    field = np.zeros(size * size, np.float32)
    field[pixel] = height
    field = field.reshape(size, size)
    scale = np.float32(camera.pixels_per_dm / 2)
    gx, gy = np.zeros_like(field), np.zeros_like(field)
    gx[:, 1:-1] = (field[:, 2:] - field[:, :-2]) * scale
    gy[1:-1] = (field[:-2] - field[2:]) * scale
    g = np.stack([gx.ravel()[pixel], gy.ravel()[pixel], np.zeros(len(pixel), np.float32)], 1)
    steep = np.sqrt(g[:, 0] ** 2 + g[:, 1] ** 2)
    return unit(normals - g * np.minimum(1, 0.3 / np.maximum(steep, 1e-6))[:, None])


def _read_masks(masks: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear lookup of the (1024, 1024, 4) masks at uv (n, 2) → (n, 4)."""
    size = masks.shape[0]
    x = np.clip(uv[:, 0] * size - 0.5, 0, size - 1.01)
    y = np.clip((1 - uv[:, 1]) * size - 0.5, 0, size - 1.01)
    ix, iy = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - ix)[:, None], (y - iy)[:, None]
    table = masks.reshape(-1, masks.shape[2])
    k = iy * size + ix
    upper = table[k] * (1 - fx) + table[k + 1] * fx
    lower = table[k + size] * (1 - fx) + table[k + size + 1] * fx
    return (upper * (1 - fy) + lower * fy) * np.float32(1 / 255)


def _over(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return below + (above - below) * alpha[:, None]


def _brows(canon: np.ndarray, identity, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Density, and strokes of single hairs: noise stretched along the direction of the brow hairs."""
    b = identity.brow
    weight = regions.brow_weight(canon, b["thickness"], b["arch"], b["lift"])
    t, over = regions.brow_coordinates(canon, b["arch"], b["lift"])
    lean = (1.3 - 1.2 * np.clip(t, 0, 1)) * over  # hairs are upright near the nose, flat near the temple
    streak = noise.sample(0.8, (t - lean * 1.5) * 210 + offset, over * 160 + t * 30 + offset, smooth=True)
    stroke = np.clip(0.85 + 0.25 * streak, 0.3, 1) * b["density"]
    return weight, stroke


def _makeup(albedo, canon, lids, amount: float, male: float):
    """Lash line; eye shadow, liner and blush if there is make-up. Returns (albedo, change of gloss)."""
    y = canon[:, 1]
    line = lids * smoothstep(7.26, 7.30, y)
    albedo = albedo * np.exp(-line * (0.35 + 0.2 * (male < 0.5) + 0.7 * amount))[:, None]
    if amount > 0:
        shadow = regions.blob(canon, 0.33, 7.345, 0.16, 0.045) * amount * 0.55
        albedo = albedo * np.exp(-shadow[:, None] * np.array([0.5, 0.72, 0.62], np.float32))
        blush = regions.blob(canon, 0.50, 6.98, 0.16, 0.12) * amount * 0.32
        albedo = albedo * np.exp(-blush[:, None] * _BLOOD)
    return albedo, -0.1 * amount


def _lips(albedo, base, canon, lips, middle, tone: float, look):
    natural = base * np.array([0.80, 0.50, 0.49], np.float32) * (1.0 if tone < 4 else 0.9)
    natural = natural + np.array([0.012, 0, 0.002], np.float32)
    share = 0.65 * look.makeup
    colour = natural * (1 - share) + np.array(look.lip_rgb, np.float32) * share
    creases = 0.05 * middle - 0.10 * np.abs(np.sin(canon[:, 0] * 90)) * 0.5
    part = np.exp(-(((canon[:, 1] - 6.607) / 0.014) ** 2)) * 0.35  # the line between the lips
    alpha = smoothstep(0.08, 0.95, lips + 0.04 * middle) * (0.70 + 0.22 * look.makeup)
    return _over(albedo, colour * np.exp(creases - part)[:, None], alpha)


def _moles(albedo, canon, seed: int):
    rng = np.random.default_rng([seed, 3])
    for _ in range(rng.integers(0, 4)):
        px, py, size, depth = rng.uniform([-0.55, 6.35, 0.008, 0.4], [0.55, 7.75, 0.018, 1.0])
        spot = np.exp(-((canon[:, 0] - px) ** 2 + (canon[:, 1] - py) ** 2) / size**2) * (canon[:, 2] > 0.6)
        albedo = albedo * np.exp(-spot[:, None] * (depth * _FRECKLE))
    return albedo


def _bumps(canon, lips, stubble, broad, middle, fine, age: float) -> np.ndarray:
    """Height (dm): pores, stubble, lip creases, and age lines on the forehead and beside the eyes."""
    x, y, z = np.abs(canon[:, 0]), canon[:, 1], canon[:, 2]
    old = float(np.clip((age - 32) / 45, 0, 1))
    height = 0.0003 * fine + 0.0006 * middle + 0.002 * stubble * fine
    forehead = np.exp(-(((y - 7.68) / 0.16) ** 2)) * smoothstep(0.5, 0.2, x) * (z > 0.8)
    height = height + old * forehead * 0.0052 * np.sin((y + 0.02 * broad + 0.03 * x * x) * 62)
    feet = np.exp(-(((x - 0.56) / 0.07) ** 2) - ((y - 7.25) / 0.12) ** 2)
    height = height + old * feet * 0.0045 * np.sin((y - 0.5 * (x - 0.5)) * 120 + broad)
    # the nasolabial fold, from the nose to the corner of the mouth and below
    fold = np.exp(-(((x - np.interp(y, [6.45, 6.62, 6.92], [0.30, 0.345, 0.21])) / 0.018) ** 2))
    height = height - old * 0.012 * fold * smoothstep(6.38, 6.5, y) * smoothstep(6.97, 6.85, y) * (z > 0.9)
    return height + lips * 0.0018 * np.sin(canon[:, 0] * 110 + broad * 1.5)
