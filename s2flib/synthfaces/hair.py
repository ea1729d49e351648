"""Hair: guide strands grown from the scalp with combing, gravity and collision, and many child strands around them.

Hair is grown on the person's neutral head; posing moves it with head and shoulders. A strand represents a thin
lock, not a single hair.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]  compiled, without stubs

from s2flib.synthfaces import mesh, regions
from s2flib.synthfaces.assets import Head
from s2flib.synthfaces.identity import Identity
from s2flib.synthfaces.look import Look
from s2flib.synthfaces.mesh import smoothstep, unit


class Strands(NamedTuple):
    """Polylines, each with its own width and colour variation."""

    points: np.ndarray  # (S, K, 3) float32, dm
    tint: np.ndarray  # (S,) factor on the colour
    width: np.ndarray  # (S,) dm
    inner: np.ndarray  # (S,) 0 outermost layer … 1 next to the scalp


class Style(NamedTuple):
    """Parameters of a hair style. Lengths in dm."""

    length: float
    lift: float  # how far the roots stand off the scalp
    comb: str  # direction on the crown: see _comb
    turn: float  # how fast a strand turns towards the comb direction and gravity, 1/dm
    gravity: float
    volume: float  # thickness of the hair on the scalp
    stick: float  # pull back towards the scalp
    strands: int
    width: float = 0.020
    curl: float = 0.0  # radius of curls
    coils: float = 0.0  # turns, radians per dm
    sides: float = 1.0  # factor on the length at the sides, for men
    clump: float = 0.45  # how much a lock narrows towards its tip


STYLES = {
    "buzz": Style(0.05, 1.0, "back", 1, 0, 0.015, 0, 5200, 0.014, sides=0.7, clump=0),
    "short": Style(0.36, 0.75, "forward_up", 4, 0.35, 0.085, 0.15, 3800, 0.022, sides=0.3, clump=0.3),
    "sidepart": Style(0.72, 0.5, "part", 4.5, 0.45, 0.12, 0.25, 3400, 0.025, sides=0.24),
    "slick": Style(0.95, 0.3, "back", 5, 0.2, 0.085, 0.4, 3200, 0.025, sides=0.32),
    "curly": Style(0.85, 0.9, "loose", 2, 0.7, 0.28, 0.15, 3400, 0.027, curl=0.045, coils=26, sides=0.4, clump=0.3),
    "afro": Style(0.5, 3, "none", 0, 0, 0.6, 0, 6500, 0.024, curl=0.035, coils=60, sides=0.7, clump=0),
    "bangs": Style(0.6, 0.4, "forward", 4.5, 0.7, 0.1, 0.2, 3400, 0.026, sides=0.36),
    "medium": Style(1.15, 0.4, "part", 4.5, 1.3, 0.13, 0.25, 3200, 0.03, curl=0.02, coils=7, sides=0.8),
    "bob": Style(1.65, 0.35, "part", 4.5, 1.7, 0.19, 0.3, 3200, 0.032, curl=0.008, coils=5, sides=0.8),
    "long": Style(3.0, 0.3, "part", 4.5, 1.8, 0.17, 0.3, 3000, 0.036, curl=0.014, coils=4),
    "longwavy": Style(2.9, 0.4, "part", 4, 1.6, 0.22, 0.25, 3000, 0.036, curl=0.05, coils=7),
    "bangs_long": Style(2.8, 0.3, "bangs", 4.5, 1.8, 0.17, 0.3, 3000, 0.036, curl=0.010, coils=4),
    "ponytail": Style(1.0, 0.08, "back", 6, 0.0, 0.04, 0.9, 3200, 0.025),
}
_CROPPED = ("buzz", "short", "sidepart", "slick")
_GUIDES, _POINTS, _KNOTS = 420, 18, 6
# (points, knots): linear interpolation from knots to the points of a strand
_at_knots = np.linspace(0, _POINTS - 1, _KNOTS)
_BETWEEN = np.stack([np.interp(np.arange(_POINTS), _at_knots, k) for k in np.eye(_KNOTS)], 1).astype(np.float32)


def scalp_density(head: Head, person: Identity, look: Look) -> np.ndarray:
    """(V,) 0 … 1: density of the hair, with a soft hairline, and thinner at the sides of short styles."""
    if look.style == "bald":
        return np.zeros(len(head.smooth))
    over = regions.hairline(head, person.recede, person.hairline)
    wobble = 0.05 * np.sin(head.smooth[:, 0] * 23 + person.seed % 7) * np.sin(head.smooth[:, 1] * 31 + person.seed % 5)
    density = smoothstep(-0.05, 0.12, over + wobble)
    if look.style in _CROPPED and person.gender == "male":
        density = density * (0.45 + 0.55 * smoothstep(6.85, 7.5, head.smooth[:, 1]))
    return density


def grow(head: Head, person: Identity, look: Look, points, normals, body, body_normals) -> Strands | None:
    """Grows a person's hair; returns None for a bald head.

    points, normals (V, 3): the neutral skin. body, body_normals (B', 3): a coarser skin for collisions.
    """
    if look.style == "bald":
        return None
    style = STYLES[look.style]
    rng = np.random.default_rng([look.seed, 1])
    n = style.strands
    density = scalp_density(head, person, look)
    if style.comb in ("part", "bangs"):  # hair falls to both sides of the parting, so it needs more strands there
        x, y = head.smooth[:, 0], head.smooth[:, 1]
        density = density * (1 + 2.0 * np.exp(-(((x - look.part) / 0.16) ** 2)) * smoothstep(7.6, 7.9, y))
    corner, weight = scatter(head, points, density, n, rng)
    root, normal, canonical = (_mix(a, corner, weight) for a in (points, normals, head.smooth))
    normal = unit(normal)
    guide = rng.choice(n, _GUIDES, replace=False)
    g_root, g_normal, g_canonical = root[guide], normal[guide], canonical[guide]
    layer = rng.uniform(0.12, 1, _GUIDES)
    eyes = float(points[head.nearest(np.array([0, 7.28, 1.51])), 1])
    paths = _grow_guides(style, look, person, g_root, g_normal, g_canonical, layer, body, body_normals, rng, eyes)

    # children follow the nearest guides on their side of the parting; their offset shrinks towards the tip
    distance, nearest = cKDTree(g_canonical).query(canonical, 3)
    same = np.ones_like(nearest, bool)
    if style.comb in ("part", "bangs"):
        same = (g_canonical[nearest, 0] > look.part) == (canonical[:, :1] > look.part)
    share = same / (distance**2 + 1e-4)
    share[:, 0] += 1e-6
    share[rng.random(n) < 0.55, 1:] *= 0.05
    share = (share / share.sum(1, keepdims=True)).astype(np.float32)
    travel = (paths - paths[:, :1]).astype(np.float32)
    s = np.linspace(0, 1, _POINTS, dtype=np.float32)[None, :, None]
    start = root[:, None].astype(np.float32)
    out = start + np.einsum("nj,njkc->nkc", share, travel[nearest])
    towards = (g_root[nearest[:, 0]] - root).astype(np.float32)[:, None]
    out += towards * (s * style.clump * rng.random((n, 1, 1), np.float32) * 2)
    reach = min(1.0, style.length)
    out += rng.normal(0, 0.03 * reach, (n, 1, 3)).astype(np.float32) * s
    drift = rng.normal(0, 0.010, (n, _KNOTS, 3)).astype(np.float32).cumsum(1)
    out += np.einsum("kj,njc->nkc", _BETWEEN, drift) * s * reach
    out = start + (out - start) * (1 - 0.3 * rng.random((n, 1, 1), np.float32) ** 2)
    if style.curl:
        out = _curl(out, style, look, nearest[:, 0], normal.astype(np.float32), rng)
    if style.comb in ("part", "back"):
        out = _off_the_face(out, canonical[:, 0], look.part, rng, eyes)
    tint = np.exp(rng.normal(0, 0.10, n)) * np.exp(0.13 * rng.normal(0, 1, _GUIDES))[nearest[:, 0]]
    dense = (scalp_density(head, person, look)[corner] * weight).sum(1)
    width = style.width * rng.uniform(0.7, 1.3, n) * (0.6 + 0.4 * dense)
    inner = 1 - layer[nearest[:, 0]]
    return Strands(out, *(a.astype(np.float32) for a in (tint, width, inner)))


def _off_the_face(points: np.ndarray, x: np.ndarray, part: float, rng: np.random.Generator, eyes: float) -> np.ndarray:
    """Moves strands that would hang across the face, except a few, to the hair beside it."""
    side = np.where(x > part, 1.0, -1.0).astype(np.float32)[:, None]
    edge = (0.58 + 0.12 * rng.random((len(points), 1), np.float32)) * (rng.random((len(points), 1), np.float32) < 0.97)
    across, y, z = points[..., 0] * side, points[..., 1], points[..., 2]
    before = smoothstep(eyes + 0.25, eyes - 0.05, y) * smoothstep(0.7, 1.0, z) * smoothstep(5.9, 6.2, y)
    points[..., 0] += side * np.clip(edge - across, 0, 0.45) * before * (edge > 0)
    return points


def _grow_guides(
    style: Style, look: Look, person: Identity, root, normal, canonical, layer, body, body_normals, rng, eyes: float
) -> np.ndarray:
    """Integrates the guides (G, K, 3): they turn towards the comb direction, then gravity, and stay off the skin."""
    g = len(root)
    length = style.length * look.length * np.exp(rng.normal(0, 0.04 if look.style == "afro" else 0.09, g))
    x, height = canonical[:, 0], canonical[:, 1]
    front = smoothstep(0.3, 1.1, canonical[:, 2]) * smoothstep(7.5, 7.9, height)
    top = smoothstep(7.5, 7.95, height)
    if style.comb in ("bangs", "forward"):
        fringe = (0.60 if style.comb == "bangs" else 0.42) + 0.12 * rng.random(g)
        length = np.where(front > 0.35, np.minimum(length, fringe + 0.25 * np.abs(x)), length)
    sides = style.sides if person.gender == "male" else min(1.0, style.sides + 0.35)
    length = length * (sides + (1 - sides) * smoothstep(7.35, 7.9, height))
    comb = _comb(style, look, x, front, top, rng)
    comb = unit(comb - normal * mesh.dot(comb, normal)[:, None] + 1e-9) * (np.linalg.norm(comb, axis=1) > 0)[:, None]
    lifted = style.lift * (0.4 + layer)
    if style.comb == "part":
        lifted = lifted + 0.12 * np.exp(-(((x - look.part) / 0.12) ** 2)) * top
    direction = unit(normal * lifted[:, None] + comb + rng.normal(0, 0.05, (g, 3)))
    # each lock of long hair falls in front of or behind the shoulder, mostly the same way on each side
    ahead = np.where(rng.random(g) < np.where(x > look.part, *rng.uniform(0.25, 0.8, 2)), 1.0, -1.0)
    pull = np.stack([np.zeros(g), -np.ones(g), 0.10 * ahead], 1)

    tree = cKDTree(body)
    body_side = np.sign(body[:, 2] - 0.25)
    torso = smoothstep(6.15, 5.85, body[:, 1])[:, None]
    # at the shoulders, push hair forwards or backwards, not sideways, or it splays
    sheer = np.stack([body_normals[:, 0] * 0.15, body_normals[:, 1] * 0.2, body_side], 1)
    push = unit(body_normals * (1 - torso) + sheer * torso)
    step = (length / (_POINTS - 1))[:, None]
    p, path = root, [root]
    for k in range(1, _POINTS):
        s = k * step
        if style.turn:
            a = 1 - np.exp(-step * style.turn)
            falls = style.gravity * (1 - np.exp(-s / 0.4))
            wish = comb * np.exp(-((s / 0.7) ** 2)) + pull * falls + direction * 0.25
            direction = unit(direction * (1 - a) + a * wish)
        q = p + direction * step
        if look.style != "afro":
            distance, j = tree.query(q)
            out = push[j]
            above = mesh.dot(q - body[j], body_normals[j])[:, None]
            wanted = 0.02 + style.volume * layer[:, None] * np.minimum(1, s / (0.25 + 0.5 * top[:, None]))
            wanted = wanted * (1 - 0.6 * torso[j])
            near = (distance < 0.6)[:, None] * np.exp(-(s**2) * (look.style != "ponytail")) * style.stick
            q = q + out * np.clip(wanted - above, 0, 0.25) - out * np.clip(above - wanted, 0, 0.3) * near
            if style.comb not in ("bangs", "forward"):
                # combed hair frames the face and does not hang across it
                below = smoothstep(eyes + 0.62, eyes + 0.32, q[:, 1])
                before = below * smoothstep(0.6, 0.95, q[:, 2]) * smoothstep(5.9, 6.2, q[:, 1])
                aside = np.where(x > look.part, 1.0, -1.0)
                q[:, 0] += aside * np.clip(0.66 - q[:, 0] * aside, 0, 0.14) * before
            direction = unit(q - p)
        p = q
        path.append(p)
    return np.stack(path, 1)


def _comb(style: Style, look: Look, x: np.ndarray, front: np.ndarray, top: np.ndarray, rng) -> np.ndarray:
    """Comb direction (G, 3): the style's on the crown, down and back at the sides."""
    g, side, lean = len(x), np.where(x > look.part, 1.0, -1.0), np.sign(look.part + 1e-9)
    comb = np.zeros((g, 3))
    if style.comb == "forward_up":
        comb[:] = [0.35 * lean, 0.3, 0.5]
    elif style.comb == "back":
        comb[:] = [0, 0.1, -1.0]
    elif style.comb == "loose":
        comb[:] = [0.2 * lean, 0.1, 0.15]
    elif style.comb == "part":
        swept = rng.uniform(0.3, 0.75)
        comb[:] = np.stack([side, 0.1 * front, -swept * front - 0.2], 1)
    elif style.comb == "forward":
        comb[:] = [0.35 * lean, -0.2, 1.0]
    elif style.comb == "bangs":
        comb[:] = np.stack([side * (1 - front), -0.3 * front, front * 1.2 - 0.3 * (1 - front)], 1)
    if look.style in ("afro", "buzz"):
        return comb
    out, up, back = (0, 0.15, -1.0) if look.style == "ponytail" else (0.1, -1.0, -0.45)
    low = np.stack([out * np.sign(x), np.full(g, up), np.full(g, back)], 1)
    return comb * top[:, None] + low * (1 - top[:, None])


def _curl(points: np.ndarray, style: Style, look: Look, guide: np.ndarray, normal: np.ndarray, rng) -> np.ndarray:
    """Winds strands into helices; strands of the same guide share the phase, so that they form locks."""
    n = len(points)
    s = np.linspace(0, 1, _POINTS, dtype=np.float32)[None]
    phase = 6.28 * rng.random(_GUIDES)
    phase = phase[guide] + rng.normal(0, 0.5, n) if look.style != "afro" else rng.choice(phase, n)
    turns = (1 + 0.15 * rng.normal(0, 1, _GUIDES))[guide][:, None]
    angle = (s * style.length * style.coils * turns + phase[:, None]).astype(np.float32)
    along = unit(np.gradient(points, axis=1))
    across = unit(mesh.cross(along, normal[:, None] + np.float32(0.01)))
    up = mesh.cross(along, across)
    radius = style.curl * np.minimum(1, s * 3)
    return points + (np.cos(angle) * radius)[..., None] * across + (np.sin(angle) * radius)[..., None] * up


def beard_density(head: Head, look: Look) -> np.ndarray:
    """(V,) 0 … 1, density of the look's beard."""
    zone = regions.beard_zones(head)
    jaw, moustache, chin, bridge = zone["jaw"], zone["moustache"], zone["chin"], zone["bridge"]
    stubble = np.maximum(jaw, moustache)
    kinds = {
        "none": np.zeros_like(jaw),
        "stubble": stubble,
        "mustache": moustache,
        "short": np.maximum(stubble, bridge * 0.8),
        "goatee": np.maximum(np.maximum(chin, moustache), bridge * 0.9),
        "full": np.maximum(stubble, bridge),
    }
    return kinds[look.beard]


def grow_beard(head: Head, look: Look, points: np.ndarray, normals: np.ndarray) -> Strands | None:
    """Strands of a beard longer than stubble, on the skin with its expression; None for other looks."""
    size = {"short": (0.05, 2600), "goatee": (0.08, 1700), "mustache": (0.08, 900), "full": (0.2, 3600)}
    if look.beard not in size:
        return None
    length, n = size[look.beard]
    rng = np.random.default_rng([look.seed, 2])
    corner, weight = scatter(head, points, beard_density(head, look), n, rng)
    root, normal, canonical = (_mix(a, corner, weight) for a in (points, normals, head.smooth))
    x, lip = canonical[:, 0], (canonical[:, 1] > 6.6) & (np.abs(canonical[:, 0]) < 0.36)
    fall = np.stack([np.where(lip, np.sign(x) * 0.9, x * 0.3), -np.ones(n), np.where(lip, 0.1, 0.15)], 1)
    fall = fall + rng.normal(0, 0.25, (n, 3))
    fall = unit(fall - normal * mesh.dot(fall, normal)[:, None])
    reach = length * np.exp(rng.normal(0, 0.2, n)) * (1 - 0.5 * smoothstep(0.35, 0.65, np.abs(x)))
    reach = np.where(lip, np.minimum(reach, 0.09), reach)
    s = np.linspace(0, 1, 5)[None, :, None]
    path = root[:, None] + unit(normal)[:, None] * 0.006
    path = path + (fall[:, None] * s + unit(normal)[:, None] * 0.55 * (s - 0.55 * s * s)) * reach[:, None, None]
    path = path + rng.normal(0, 0.05, path.shape) * s * length
    tint = np.exp(rng.normal(0, 0.15, n)).astype(np.float32)
    return Strands(path.astype(np.float32), tint, np.full(n, 0.012, np.float32), np.zeros(n, np.float32))


def scatter(head: Head, points: np.ndarray, density: np.ndarray, n: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """n points on the skin, sampled by density times area, as vertex indices (n, 3) and weights (n, 3)."""
    a, b, c = (points[head.tris[:, k]] for k in range(3))
    area = np.linalg.norm(mesh.cross(b - a, c - a), axis=1)
    total = np.cumsum(density[head.tris].mean(1) * area)
    chosen = np.searchsorted(total, rng.random(n) * total[-1])
    r1, r2 = np.sqrt(rng.random(n)), rng.random(n)
    return head.tris[chosen], np.stack([1 - r1, r1 * (1 - r2), r1 * r2], 1)


def _mix(values: np.ndarray, corner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.einsum("nkc,nk->nc", values[corner], weight)
