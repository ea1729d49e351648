"""Photograph a person: rasterise, shade, add hair, background and lenses, apply the camera's response."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from s2flib.synthfaces import eyes, film, landmarks, lighting, noise, skin, strands
from s2flib.synthfaces.background import background
from s2flib.synthfaces.buffers import Buffers, collect
from s2flib.synthfaces.camera import Camera
from s2flib.synthfaces.labels import LABEL, majority, skin_labels
from s2flib.synthfaces.mesh import dot, join, smoothstep, unit
from s2flib.synthfaces.person import EYEBALL, Part, Person, pose_person
from s2flib.synthfaces.raster import Hits, rasterise
from s2flib.synthfaces.shot import Shot

_SUPERSAMPLE = 2
_WRAP_SKIN = np.array([0.20, 0.08, 0.05], np.float32)
_WRAP_CLOTH = np.array([0.12, 0.12, 0.12], np.float32)
_SCATTER = (0.022, 0.010, 0.005)  # mean distance (dm) that light travels inside skin, per colour


@dataclass(frozen=True)
class Portrait:
    """rgb (H, W, 3) uint8 sRGB; labels (H, W) uint8 (labels.LABELS); landmarks (68, 2) pixels x, y;
    cover (H, W) float32, coverage by the person, 0 … 1; buffers: input for line_drawing, or None."""

    rgb: np.ndarray
    labels: np.ndarray
    landmarks: np.ndarray
    cover: np.ndarray
    buffers: Buffers | None = None


def photograph(
    person: Person, shot: Shot, size: int = 128, camera: Camera | None = None, keep_buffers: bool = False
) -> Portrait:
    """Renders (size, size) pixels with 2×2 supersampling. ``camera`` overrides the framing (for edits)."""
    width = size * _SUPERSAMPLE
    camera = person.camera(shot, width) if camera is None else camera.resized(width)
    parts, extras = pose_person(person, shot)
    canvas = _Canvas(person, shot, camera, parts, extras)
    canvas.shade_parts()
    canvas.add_lashes()
    canvas.add_strands()
    scene = background(shot.background, shot.light, width).reshape(-1, 3)
    canvas.rgb = scene + (canvas.rgb - scene) * canvas.alpha[:, None]
    bare = canvas.labels.copy()
    canvas.add_lenses()
    blocks = (size, _SUPERSAMPLE, size, _SUPERSAMPLE)
    light = canvas.rgb.reshape(*blocks, 3).mean((1, 3))
    labels = majority(canvas.labels.reshape(width, width), _SUPERSAMPLE)
    points = landmarks.project(person, shot, camera)
    buffers = collect(canvas, points, bare) if keep_buffers else None
    cover = canvas.alpha.reshape(blocks).mean((1, 3))
    return Portrait(film.develop(light, shot), labels, points / _SUPERSAMPLE, cover, buffers)


class _Canvas:
    """A picture being rendered. Pixel arrays are flat, of length width²."""

    def __init__(self, person: Person, shot: Shot, camera: Camera, parts: list[Part], extras: dict):
        self.person, self.shot, self.camera, self.parts, self.extras = person, shot, camera, parts, extras
        n = camera.width**2
        self.rgb = np.zeros((n, 3), np.float32)
        self.alpha = np.zeros(n, np.float32)
        self.labels = np.zeros(n, np.uint8)
        self.vertices, self.tris = join([(p.vertices, p.tris) for p in parts])
        normals = np.concatenate([p.normals for p in parts])
        self.first_vertex = np.cumsum([0] + [len(p.vertices) for p in parts])
        screen = camera.project(self.vertices)
        # move the inside of the mouth and the teeth back a little, or they would show through closed lips
        back = 0.15 * smoothstep(0.5, 0.9, person.head.vertex_masks["inside_mouth"])
        screen[: self.first_vertex[1], 2] += back.astype(np.float32)
        for i, part in enumerate(parts):
            if part.name in ("teeth_upper", "teeth_lower", "tongue"):
                screen[self.first_vertex[i] : self.first_vertex[i + 1], 2] += 0.06
        self.hits: Hits = rasterise(screen, self.tris, camera.width, camera.width)
        self.depth = self.hits.depth
        self.alpha[self.hits.pixel] = 1
        both = self.hits.gather(np.concatenate([self.vertices, normals], 1), self.tris)
        self.points = both[:, :3]
        self.view = camera.view(self.points)
        self.normals = unit(both[:, 3:])
        self.normals *= np.where(dot(self.normals, self.view) < 0, -1, 1).astype(np.float32)[:, None]
        self.part = np.repeat(np.arange(len(parts)), [len(p.tris) for p in parts])[self.hits.triangle]
        casters = [p for p in parts if p.name in ("skin", "glasses", "hat", "visor")]
        hair, weight = extras.get("hair"), None
        if hair is not None:
            hidden = extras.get("hair_hidden")
            weight = None if hidden is None else 1 - hidden[:, 1::2].ravel()
            hair = hair[:, 1::2].reshape(-1, 3)
        vertices, tris = join([(p.vertices, p.tris) for p in casters])
        self.shadows = lighting.Shadows(shot.light, vertices, tris, hair, weight)
        self.lit = self.shadows.lit(self.points + 0.02 * self.normals)
        self.surface = self.skin_hits = None

    def shade_parts(self) -> None:
        shaders = {"l_eye": self._shade_eye, "r_eye": self._shade_eye, "tongue": self._shade_tongue}
        shaders |= {"skin": self._shade_skin, "teeth_upper": self._shade_teeth, "teeth_lower": self._shade_teeth}
        for i, part in enumerate(self.parts):
            which = np.nonzero(self.part == i)[0]
            if len(which):
                shaders.get(part.name, self._shade_thing)(part, which, i)

    def _shade_skin(self, part: Part, which: np.ndarray, index: int) -> None:
        light = self.shot.light
        s = skin.surface(self.person, self.hits, which)
        self.surface, self.skin_hits = s, which
        pixel = self.hits.pixel[which]
        normals = skin.bumped(self.normals[which], s.height, pixel, self.camera)
        lit, view = self.lit[which], self.view[which]
        e = lighting.irradiance(light, normals, lit, s.open_sky, _WRAP_SKIN)
        e = self._scatter(e, pixel, s.cloth <= 0)
        key = np.array(light.key_rgb, np.float32)
        shine = lighting.specular(light, normals, view, lit, 0.50) * 0.62
        shine += lighting.specular(light, normals, view, lit, 0.34) * 0.05
        grazing = (1 - np.clip(dot(normals, view), 0, 1)) ** 4 * 0.05 * s.open_sky
        out = s.albedo * e + (s.gloss * shine)[:, None] * key
        out += (s.gloss * grazing)[:, None] * lighting.sky_irradiance(light, normals)
        self.rgb[pixel] = out
        self.labels[pixel] = skin_labels(s)

    def _scatter(self, e: np.ndarray, pixel: np.ndarray, on_skin: np.ndarray) -> np.ndarray:
        """Subsurface scattering as a screen-space blur of the irradiance, widest for red (d'Eon et al. 2007)."""
        size = self.camera.width
        inside = np.zeros(size * size, np.float32)
        inside[pixel[on_skin]] = 1
        inside = inside.reshape(size, size)
        out = e.copy()
        for c, travel in enumerate(_SCATTER):
            sigma = travel * self.camera.pixels_per_dm
            if sigma < 0.6:
                continue
            field = np.zeros(size * size, np.float32)
            field[pixel[on_skin]] = e[on_skin, c]
            blurred = gaussian_filter(field.reshape(size, size), sigma, truncate=2.5)
            share = gaussian_filter(inside, sigma, truncate=2.5)
            out[on_skin, c] = (blurred / np.maximum(share, 1e-3)).ravel()[pixel[on_skin]]
        return out

    def _shade_eye(self, part: Part, which: np.ndarray, index: int) -> None:
        side = 0 if part.name == "r_eye" else 1
        centre, radius = self.extras["eyes"][side], self.person.eyes[side][1]
        local = self._interpolate(EYEBALL[0], which, index).astype(np.float32)
        up = ((self.points[which, 1] - centre[1]) / radius).astype(np.float32)
        seen = self.normals[which], self.view[which], self.lit[which]
        self._paint(which, eyes.eyeball(local, *seen, self.shot.light, self.person.identity, up), part.name)

    def _shade_teeth(self, part: Part, which: np.ndarray, index: int) -> None:
        canonical = self._interpolate(self.person.head.vertices, which, index)
        upper, lower = self.parts[0].vertices[landmarks.vertices(self.person.head)[[62, 66]], 1]
        light_in = np.float32(0.3 + 0.7 * smoothstep(0.0, 0.05, upper - lower))  # a narrow gap lets little light in
        seen = self.normals[which], self.view[which], self.lit[which]
        self._paint(which, light_in * eyes.teeth(canonical, *seen, self.shot.light), "mouth")

    def _shade_tongue(self, part: Part, which: np.ndarray, index: int) -> None:
        self._paint(which, eyes.tongue(self.normals[which], self.lit[which], self.shot.light), "mouth")

    def _shade_thing(self, part: Part, which: np.ndarray, index: int) -> None:
        """Glasses, hats, earrings: uniform colour with some gloss."""
        look, light = self.person.look, self.shot.light
        if look.glasses is not None and part.name == "glasses":
            rgb, gloss, rough, label = look.glasses.rgb, 0.8, 0.3, "eye_g"
        elif look.hat is not None and part.name == "hat":
            rgb, gloss, rough, label = look.hat.rgb, 0.08, 0.7, "hat"
        elif look.hat is not None and part.name == "visor":
            rgb, gloss, rough, label = 0.55 * np.array(look.hat.rgb), 0.12, 0.6, "hat"
        else:
            rgb, gloss, rough, label = look.metal_rgb, 4.0, 0.3, "ear_r"
        normals, view, lit = self.normals[which], self.view[which], self.lit[which]
        albedo = np.array(rgb, np.float32) * np.ones((len(which), 1), np.float32)
        if look.hat is not None and part.name == "hat":
            x, y, z = self.points[which].T
            albedo = albedo * np.exp(0.08 * noise.sample(0.5, x * 220, y * 220))[:, None]
            if look.hat.kind == "beanie":
                albedo = albedo * (0.86 + 0.14 * np.sin(np.arctan2(x, z + 0.3) * 70))[:, None]
        open_sky = np.full(len(which), 0.85, np.float32)
        e = lighting.irradiance(light, normals, lit, open_sky, _WRAP_CLOTH)
        shine = lighting.specular(light, normals, view, lit, rough) * gloss
        self._paint(which, albedo * e + shine[:, None] * np.array(light.key_rgb, np.float32), label)

    def _interpolate(self, values: np.ndarray, which: np.ndarray, index: int) -> np.ndarray:
        """Vertex values (V, 3) of part ``index`` at the hits ``which``."""
        corners = self.tris[self.hits.triangle[which]] - self.first_vertex[index]
        return np.einsum("nkc,nk->nc", values[corners], self.hits.weights[which])

    def _paint(self, which: np.ndarray, rgb: np.ndarray, label: str) -> None:
        self.rgb[self.hits.pixel[which]] = rgb
        self.labels[self.hits.pixel[which]] = LABEL[label]

    def add_lashes(self) -> None:
        head, identity = self.person.head, self.person.identity
        screen = self.camera.project(self.extras["base"])
        for name in ("lash_upper", "lash_lower"):
            tris = head.parts[name]
            hits = rasterise(screen, tris, self.camera.width, self.camera.width)
            near = np.nonzero(hits.depth[hits.pixel] < self.depth[hits.pixel] + 0.03)[0]
            tip = hits.gather(head.lash_tip[name], tris, near)
            x = np.abs(hits.gather(head.vertices[:, 0], tris, near))
            alpha = eyes.lash_alpha(x, tip, name == "lash_upper", identity.male > 0.5, self.person.look.makeup)
            pixel = hits.pixel[near]
            self.rgb[pixel] += (0.012 - self.rgb[pixel]) * alpha[:, None].astype(np.float32)

    def add_strands(self) -> None:
        shot, person = self.shot, self.person
        rng = np.random.default_rng([person.look.seed, 4])
        axis = self.extras["eyes"].mean(0) + [0, 0.15, -0.8]
        scene = shot.light, self.camera, self.shadows, axis
        self.hair_alpha = np.zeros(len(self.depth), np.float32)
        self.hair_depth = np.full(len(self.depth), np.inf, np.float32)
        if person.hair is not None:
            points = self.extras["hair"]
            weight = np.ones(points.shape[:2], np.float32)
            weight *= 1 - 0.7 * np.linspace(0, 1, points.shape[1], dtype=np.float32) ** 6
            if "hair_hidden" in self.extras:
                weight *= 1 - self.extras["hair_hidden"].astype(np.float32)
            radiance = strands.shade(person.hair, points, person.hair_rgb, *scene, gloss=1.0)
            layer = strands.splat(points, radiance, person.hair.width, weight, self.camera, self.depth, rng)
            self._blend(layer)
            self.hair_alpha, self.hair_depth = layer.alpha, layer.depth
            self.labels[layer.alpha > 0.5] = LABEL["hair"]
        self.beard_alpha = np.zeros(len(self.depth), np.float32)
        if "beard" in self.extras:
            beard = self.extras["beard"]
            natural = np.array(person.identity.hair_rgb, np.float32)
            radiance = strands.shade(beard, beard.points, natural * 0.85, *scene, gloss=0.35)
            weight = np.ones(beard.points.shape[:2], np.float32)
            layer = strands.splat(beard.points, radiance, beard.width, weight, self.camera, self.depth, rng, 0.8)
            self._blend(layer)
            self.beard_alpha = layer.alpha
            outside = (layer.alpha > 0.5) & (self.labels == LABEL["background"])
            self.labels[outside] = LABEL["skin"]

    def _blend(self, layer: strands.Layer) -> None:
        a = layer.alpha[:, None]
        total = a + (1 - a) * self.alpha[:, None]
        self.rgb = (layer.rgb * a + self.rgb * (1 - a) * self.alpha[:, None]) / np.maximum(total, 1e-6)
        self.alpha = total[:, 0]

    def add_lenses(self) -> None:
        """Adds lenses: tinted, or clear with a faint reflection of the sky. Lenses are labelled eye_g."""
        glasses = self.person.look.glasses
        if glasses is None:
            return
        vertices, tris = self.extras["lenses"]
        hits = rasterise(self.camera.project(vertices), tris, self.camera.width, self.camera.width)
        front = (hits.depth[hits.pixel] < self.depth[hits.pixel]) & (self.hair_alpha[hits.pixel] < 0.5)
        pixel = hits.pixel[front]
        x, y = pixel % self.camera.width / self.camera.width, pixel // self.camera.width / self.camera.width
        glare = smoothstep(0.75, 1.0, np.sin((x + y * 0.6) * 9 + self.shot.grain % 6)) * 0.5 + smoothstep(0.62, 0.4, y)
        sky = np.array(self.shot.light.sky_rgb, np.float32)
        if glasses.sun:
            self.rgb[pixel] = self.rgb[pixel] * 0.10 + (0.008 + 0.035 * glare[:, None]) * sky
        else:
            self.rgb[pixel] = self.rgb[pixel] * 0.95 + (0.012 * glare)[:, None] * sky
        self.labels[pixel] = LABEL["eye_g"]
