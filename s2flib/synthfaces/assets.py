"""The base head of all people: MakeHuman's base mesh and shape targets (CC0), loaded once per process.

``scripts/build_head_assets.py`` builds the file from a public wheel; its checksum is pinned here.
"""

from __future__ import annotations

import hashlib
import io
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]  compiled, without stubs

from s2flib.errors import DataError
from s2flib.synthfaces import mesh

ASSETS = Path(__file__).with_name("assets") / "head_assets.npz"
ASSETS_SHA256 = "49cd390920744857719127802ce7188868d55ef73ec89468dd0dd1150c98e07f"
MASK_NAMES = ("lips", "ears", "eyelids", "inside_mouth")
_MOUTH = ("teeth_upper", "teeth_lower", "tongue")


class Head:
    """The neutral ("canonical") head and its shape targets. Do not modify; lengths in dm.

    vertices (B, 3)    base mesh, chin at y ≈ 6.2, eyes at (±0.31, 7.28, 1.25), top at 8.5
    smooth (V, 3)      skin, subdivided once: subdivide @ vertices
    tris (T, 3)        triangles of the skin, indices into ``smooth``
    uv (T, 3, 2)       texture coordinates per corner
    masks (1024, 1024, 4) uint8, 255 is inside: MASK_NAMES in UV space, row 0 at v = 1
    occlusion (V,)     fraction of the sky visible from each skin vertex
    parts              name → triangles of teeth, tongue and lashes, indices into ``vertices``
    """

    def __init__(self, data: dict[str, np.ndarray]):
        self.vertices = data["vertices"].astype(np.float64)
        n = len(self.vertices)
        self.names = [str(name) for name in data["target_names"]]
        self._start = data["target_start"]
        self._index = data["target_index"].astype(np.int32)
        self._offset = data["target_offset"]
        self._scale = data["target_scale"]
        self.number = {name: i for i, name in enumerate(self.names)}
        self.subdivide, quads = mesh.catmull_clark(data["faces_skin"], n)
        self.tris = mesh.triangles(quads).astype(np.int32)
        self.uv = mesh.triangles(mesh.subdivide_corners(data["uv_skin"])).astype(np.float32)
        self.smooth = self.subdivide @ self.vertices
        self.around = mesh.incidence(self.tris, len(self.smooth))
        self.masks = data["masks"]
        self.occlusion = data["occlusion"].astype(np.float32) / 255
        names = (*_MOUTH, "lash_upper", "lash_lower")
        self.parts = {name: mesh.triangles(data[f"faces_{name}"]).astype(np.int32) for name in names}
        self.eye_vertices = (np.unique(data["faces_eye_right"]), np.unique(data["faces_eye_left"]))
        self.mouth_vertices = np.unique(np.concatenate([self.parts[name].ravel() for name in _MOUTH]))

    def target(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Base vertex indices (n,) and offsets (n, 3) of a shape target at full strength."""
        i = self.number[name]
        part = slice(self._start[i], self._start[i + 1])
        return self._index[part], self._offset[part] * self._scale[i]

    def has(self, name: str) -> bool:
        return name in self.number

    def morph(self, weights: dict[str, float], base: np.ndarray | None = None) -> np.ndarray:
        """Base vertices (B, 3), by default the neutral head's, plus Σ weight · target."""
        out = (self.vertices if base is None else base).copy()
        for name, weight in weights.items():
            index, offset = self.target(name)
            out[index] += weight * offset
        return out

    @cached_property
    def vertex_masks(self) -> dict[str, np.ndarray]:
        """The UV masks sampled at the skin vertices, name → (V,) in [0, 1]."""
        uv = np.zeros((len(self.smooth), 2))
        uv[self.tris.ravel()] = self.uv.reshape(-1, 2)
        column = np.clip(uv[:, 0] * 1024, 0, 1023).astype(int)
        row = np.clip((1 - uv[:, 1]) * 1024, 0, 1023).astype(int)
        values = self.masks[row, column].astype(np.float32) / 255
        return {name: values[:, k] for k, name in enumerate(MASK_NAMES)}

    @cached_property
    def mouth_corners(self) -> tuple[int, int]:
        """Skin vertices at the right and left corner of the mouth."""
        lips = np.nonzero(self.vertex_masks["lips"] > 0.5)[0]
        x = self.smooth[lips, 0]
        return int(lips[x.argmin()]), int(lips[x.argmax()])

    @cached_property
    def lash_tip(self) -> dict[str, np.ndarray]:
        """Upper and lower lashes: 0 at the root to 1 at the tip, per base vertex."""
        lids = cKDTree(self.smooth[self.vertex_masks["eyelids"] > 0.2])
        out = {}
        for name in ("lash_upper", "lash_lower"):
            used = np.unique(self.parts[name])
            far = lids.query(self.vertices[used])[0]
            tip = np.zeros(len(self.vertices), np.float32)
            tip[used] = np.clip((far - 0.01) / (np.percentile(far, 95) - 0.01), 0, 1)
            out[name] = tip
        return out

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """Skin vertices (n,) nearest to canonical points (n, 3), or the vertex nearest to one point (3,)."""
        return self._tree.query(points)[1]

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.smooth)


def read_head(path: Path = ASSETS) -> Head:
    """Reads the asset file; raises DataError if it is missing or its checksum differs."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the head assets {path} cannot be read ({error.strerror}): restore the file from the repository."
        ) from error
    if hashlib.sha256(content).hexdigest() != ASSETS_SHA256:
        raise DataError(
            f"the head assets {path} are damaged (sha256 differs): restore the file from the repository or rebuild it "
            "with scripts/build_head_assets.py."
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as data:
        return Head(dict(data))


@lru_cache(maxsize=1)
def load_head() -> Head:
    """The shipped head, loaded once per process (about half a second)."""
    return read_head()
