"""Head assets, meshes, the rasteriser, streams."""

import numpy as np
import pytest

from s2flib.errors import DataError
from s2flib.synthfaces import mesh
from s2flib.synthfaces.assets import ASSETS, ASSETS_SHA256, load_head, read_head
from s2flib.synthfaces.identity import sample_identity, shape_sliders, shape_weights, with_sliders
from s2flib.synthfaces.raster import rasterise
from s2flib.synthfaces.streams import choose, stream


def test_assets_are_the_pinned_ones_and_hold_a_head():
    import hashlib

    assert hashlib.sha256(ASSETS.read_bytes()).hexdigest() == ASSETS_SHA256
    head = load_head()
    assert 95 <= len(shape_sliders(head)) <= 105
    assert head.smooth[:, 1].max() == pytest.approx(8.5, abs=0.1)
    assert (head.occlusion > 0.7).mean() > 0.1 and (head.occlusion < 0.1).any()
    assert "CC0" in ASSETS.with_name("LICENSE-CC0.md").read_text(encoding="utf-8")


def test_damaged_and_missing_assets_are_named(tmp_path):
    damaged = tmp_path / "head.npz"
    damaged.write_bytes(ASSETS.read_bytes()[:-100] + bytes(100))
    with pytest.raises(DataError, match="damaged.*build_head_assets"):
        read_head(damaged)
    with pytest.raises(DataError, match="cannot be read"):
        read_head(tmp_path / "nowhere.npz")


def test_subdivision_of_a_cube_is_known():
    """Catmull-Clark on a cube of half side 1: face points 1, edge points 3/4, vertices 5/9 (closed form)."""
    v = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    f = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    s, quads = mesh.catmull_clark(f, 8)
    p = s @ v
    assert p.shape == (26, 3) and quads.shape == (24, 4)
    assert np.allclose(np.abs(p[:8]), 5 / 9)
    assert np.allclose(np.sort(np.abs(p[8:20]), 1), [0, 0.75, 0.75])
    assert np.allclose(np.sort(np.abs(p[20:]), 1), [0, 0, 1])
    assert set(np.bincount(quads.ravel())) == {3, 4}


def test_normals_point_away_from_a_sphere_and_rotation_turns():
    from s2flib.synthfaces.accessories import sphere

    v, t = sphere()
    n = mesh.vertex_normals(v, t)
    inner = np.abs(v[:, 2]) < 0.9
    assert (mesh.dot(n, v)[inner] > 0.98).all() or (mesh.dot(n, v)[inner] < -0.98).all()
    r = mesh.rotation(0.3, -0.2, 0.1)
    assert np.allclose(r @ r.T, np.eye(3)) and np.linalg.det(r) == pytest.approx(1)
    assert mesh.rotation(0.5, 0, 0) @ [0, 0, 1] == pytest.approx([np.sin(0.5), 0, np.cos(0.5)])


def test_rasteriser_agrees_with_point_in_triangle():
    rng = np.random.default_rng(0)
    p = np.c_[rng.uniform(-4, 36, (30, 2)), rng.uniform(0, 5, 30)]
    t = rng.permutation(30).reshape(10, 3)
    hits = rasterise(p, t, 24, 32)
    y, x = np.divmod(np.arange(24 * 32), 32)
    best = np.full(24 * 32, np.inf)
    for a, b, c in p[t]:
        m = np.linalg.solve(np.array([b[:2] - a[:2], c[:2] - a[:2]]).T, np.stack([x + 0.5 - a[0], y + 0.5 - a[1]]))
        inside = (m[0] >= 0) & (m[1] >= 0) & (m.sum(0) <= 1)
        z = a[2] + m[0] * (b[2] - a[2]) + m[1] * (c[2] - a[2])
        best = np.where(inside & (z < best), z, best)
    covered = np.isfinite(best)
    assert covered.sum() > 200
    assert (np.isfinite(hits.depth) != covered).mean() < 0.005  # float32 at edges
    both = covered & np.isfinite(hits.depth)
    assert np.abs(hits.depth[both] - best[both]).max() < 1e-3
    assert np.allclose(hits.gather(p[:, 2].astype(np.float32), t), hits.depth[hits.pixel], atol=1e-3)
    assert (hits.triangle >= 0).all() and np.allclose(hits.weights.sum(1), 1, atol=1e-5)


def test_culling_keeps_one_side():
    p = np.array([[2, 2, 1], [28, 2, 1], [2, 28, 1]], float)
    one, other = (len(rasterise(p, np.array([t]), 32, 32, cull=True).pixel) for t in ([0, 1, 2], [0, 2, 1]))
    assert sorted((one > 0, other > 0)) == [False, True]


def test_streams_are_independent_and_named():
    a = stream(1, 2, "hair").random(4)
    assert (stream(1, 2, "hair").random(4) == a).all()
    others = [stream(1, 2, "skin"), stream(1, 3, "hair"), stream(2, 2, "hair"), stream(1, "hair", 2)]
    assert all((o.random(4) != a).all() for o in others)
    with pytest.raises(ValueError, match="from 0 upwards"):
        stream(1, -1)
    counts = [choose(stream(0, i), {"a": 3, "b": 1}) for i in range(400)]
    assert 0.67 < counts.count("a") / 400 < 0.83


def test_sliders_move_what_they_name():
    head = load_head()
    person = sample_identity(3, 0)
    wide, narrow = (head.morph(shape_weights(head, with_sliders(person, nose_scale_horiz=v))) for v in (0.9, -0.9))
    moved = np.abs(wide - narrow).max(1) > 1e-3
    low, near = head.vertices[:, 2] > 1.0, np.abs(head.vertices[:, 0]) < 0.35
    nose = near & low & (np.abs(head.vertices[:, 1] - 7.0) < 0.4)
    assert moved.sum() > 50 and moved[nose].sum() > 0.9 * moved.sum()
    assert not moved[head.vertices[:, 1] < 6.0].any()
    tip = head.vertices[:, 2] > 1.5
    assert np.ptp(wide[tip & nose, 0]) > np.ptp(narrow[tip & nose, 0])
    names = [s.name for s in shape_sliders(head)]
    assert len(set(names)) == len(names) and all(s.high for s in shape_sliders(head))


def test_identities_repeat_and_their_components_are_separate():
    assert sample_identity(7, 3) == sample_identity(7, 3)
    person, older = sample_identity(7, 3), sample_identity(7, 3, age=70)
    assert older.age == 70 and older.sliders == person.sliders and older.eye_color == person.eye_color
    assert sample_identity(7, 4).sliders != person.sliders
    people = [sample_identity(11, i) for i in range(150)]
    assert 55 < sum(p.gender == "male" for p in people) < 95
    assert all(18 <= p.age <= 80 and abs(sum(p.ancestry) - 1) < 1e-9 for p in people)
    assert max(abs(v) for p in people for v in p.sliders.values()) <= 0.9
    mean = np.mean([p.ancestry for p in people], 0)
    assert mean.min() > 0.25  # balanced by design


def test_sampled_faces_have_plausible_proportions():
    head = load_head()
    from s2flib.synthfaces.proportions import measure

    found = np.array([measure(head, shape_weights(head, sample_identity(31, i))) for i in range(60)])
    low, high = [0.76, 0.62, 0.66, 0.74, 0.62], [1.01, 0.82, 0.90, 1.12, 0.80]
    assert (found >= low).all() and (found <= high).all(), (found.min(0), found.max(0))
    assert 0.83 < found[:, 0].mean() < 0.93
