"""Meshes: Catmull-Clark subdivision as a sparse matrix, vertex normals, and vector helpers.

Lengths are decimetres; x points to the person's left, y up, z out of the face towards the camera.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def catmull_clark(faces: np.ndarray, n_vertices: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """One level of Catmull-Clark subdivision (Catmull and Clark 1978), which is linear in the vertices.

    faces (F, 4) int → sparse S (n2, n_vertices) with new_vertices = S @ vertices, and quads (4F, 4).
    Boundary edges are split at their midpoints; boundary vertices follow the cubic B-spline rule.
    """
    n_faces = len(faces)
    corners = np.repeat(np.arange(n_faces), 4)
    edges = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), 1)
    edge, edge_of_corner, uses = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    edge_of_corner = edge_of_corner.ravel()
    n_edges = len(edge)
    e_range = np.repeat(np.arange(n_edges), 2)

    face_points = _sparse(0.25, corners, faces.ravel(), n_faces, n_vertices)
    midpoints = _sparse(0.5, e_range, edge.ravel(), n_edges, n_vertices)
    edge_to_face = _sparse(0.25, edge_of_corner, corners, n_edges, n_faces)
    boundary = uses == 1
    edge_points = sp.diags((~boundary) * 1.0) @ (midpoints * 0.5 + edge_to_face @ face_points)
    edge_points = edge_points + sp.diags(boundary * 1.0) @ midpoints

    vertex_edge = _sparse(1.0, edge.ravel(), e_range, n_vertices, n_edges)
    vertex_face = _sparse(1.0, faces.ravel(), corners, n_vertices, n_faces)
    n = np.maximum(np.asarray(vertex_face.sum(1)).ravel(), 1)
    on_boundary = np.asarray(vertex_edge @ (boundary * 1.0)).ravel() > 0
    face_mean = sp.diags(1 / n) @ vertex_face @ face_points
    edge_mean = sp.diags(1 / np.maximum(np.asarray(vertex_edge.sum(1)).ravel(), 1)) @ vertex_edge @ midpoints
    identity = sp.identity(n_vertices, format="csr")
    inner = sp.diags(1 / n) @ face_mean + sp.diags(2 / n) @ edge_mean + sp.diags((n - 3) / n) @ identity
    along = vertex_edge @ sp.diags(boundary * 1.0)
    n_along = np.maximum(np.asarray(along.sum(1)).ravel(), 1)
    border = identity * 0.5 + sp.diags(0.5 / n_along) @ along @ midpoints
    vertex_points = sp.diags(on_boundary * 1.0) @ border + sp.diags(~on_boundary * 1.0) @ inner

    subdivide = sp.csr_matrix(sp.vstack([vertex_points, edge_points, face_points]))
    e = edge_of_corner.reshape(n_faces, 4) + n_vertices
    f = np.arange(n_faces) + n_vertices + n_edges
    quads = np.stack([np.stack([faces[:, k], e[:, k], f, e[:, k - 1]], 1) for k in range(4)], 1)
    return subdivide, quads.reshape(-1, 4)


def subdivide_corners(values: np.ndarray) -> np.ndarray:
    """Bilinear subdivision of corner values, e.g. UV: (F, 4, C) → (4F, 4, C), in the quad order of catmull_clark."""
    centre = values.mean(1)
    quads = []
    for k in range(4):
        here, after, before = values[:, k], values[:, (k + 1) % 4], values[:, k - 1]
        quads.append(np.stack([here, (here + after) / 2, centre, (here + before) / 2], 1))
    return np.stack(quads, 1).reshape(-1, 4, values.shape[-1])


def triangles(quads: np.ndarray) -> np.ndarray:
    """(F, 4, ...) quads → (2F, 3, ...) triangles with the same winding."""
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape((-1, 3) + quads.shape[2:])


def incidence(tris: np.ndarray, n_vertices: int) -> sp.csr_matrix:
    """(n_vertices, T) matrix that sums over the triangles around each vertex."""
    cols = np.repeat(np.arange(len(tris)), 3)
    return _sparse(np.float32(1), tris.ravel(), cols, n_vertices, len(tris))


def vertex_normals(vertices: np.ndarray, tris: np.ndarray, around: sp.csr_matrix | None = None) -> np.ndarray:
    """Area-weighted unit normals (V, 3); ``around`` is incidence(tris, V), if precomputed."""
    if around is None:
        around = incidence(tris, len(vertices))
    corner = vertices[tris[:, 0]]
    return unit(around @ cross(vertices[tris[:, 1]] - corner, vertices[tris[:, 2]] - corner))


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product over the last axis (several times faster than np.cross)."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot product over the last axis."""
    return np.einsum("...i,...i->...", a, b)


def unit(a: np.ndarray) -> np.ndarray:
    """Vectors of length 1 along the last axis; zero stays near zero."""
    return a / np.sqrt(np.maximum(dot(a, a), 1e-18))[..., None]


def smoothstep(low: float, high: float, x: np.ndarray | np.floating) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, a smooth cubic in between; falls from 1 to 0 if low > high."""
    t = np.minimum(np.maximum((x - low) * (1 / (high - low)), 0), 1)
    return t * t * (3 - 2 * t)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Ry·Rx·Rz (3, 3), angles in radians."""
    (cy, cp, cr), (sy, sx, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sx], [0, sx, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def tube(path: np.ndarray, radius: float, closed: bool, up=(0.013, 0.02, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a hexagonal tube along ``path`` (K, 3)."""
    sides = 6
    along = unit(np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0))
    a = unit(cross(along, np.broadcast_to(np.asarray(up, float), along.shape)))
    b = cross(along, a)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    ring = np.cos(angle) * a[:, None] + np.sin(angle) * b[:, None]
    return (path[:, None] + radius * ring).reshape(-1, 3), lattice(len(path), sides, wrap_rows=closed)


def lattice(rows: int, columns: int, wrap_rows: bool = False, wrap_columns: bool = True) -> np.ndarray:
    """Triangles of a grid of vertices in row-major order, optionally closed along either axis."""
    index = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(index, -1, 1)
    below, diagonal = np.roll(index, -1, 0), np.roll(right, -1, 0)
    keep = np.ones((rows, columns), bool)
    keep[-1:] = wrap_rows
    keep[:, -1:] &= wrap_columns
    first = np.stack([index, right, below], -1)[keep]
    second = np.stack([right, diagonal, below], -1)[keep]
    return np.concatenate([first, second])


def join(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Merges several (vertices, triangles) into one mesh."""
    offsets = np.cumsum([0] + [len(v) for v, _ in parts[:-1]])
    tris = [t + offset for (_, t), offset in zip(parts, offsets, strict=True)]
    return np.concatenate([v for v, _ in parts]), np.concatenate(tris)


def _sparse(value, rows, cols, n_rows: int, n_cols: int) -> sp.csr_matrix:
    return sp.csr_matrix((np.full(len(rows), value), (rows, cols)), (n_rows, n_cols))
