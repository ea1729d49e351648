"""A person's geometry: morphed head, hair and eyes, then posed with an expression for one shot."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from s2flib.synthfaces import accessories, hair, mesh, regions
from s2flib.synthfaces.assets import Head, load_head
from s2flib.synthfaces.camera import Camera, aligned_camera
from s2flib.synthfaces.colours import HAIR, linear
from s2flib.synthfaces.identity import Identity, shape_weights
from s2flib.synthfaces.look import Look
from s2flib.synthfaces.mesh import smoothstep
from s2flib.synthfaces.shot import Shot

_SHOULDERS_UP = 0.22  # dm; MakeHuman's neck is straighter than that of people in front of a camera
_INCISORS = 0.05  # dm, length of the upper incisors visible below the resting upper lip
EYEBALL = accessories.sphere(40, 26, 0.62)


class Part(NamedTuple):
    """One mesh of a posed person, in camera space (dm)."""

    name: str
    vertices: np.ndarray  # (V, 3) float32
    tris: np.ndarray  # (T, 3)
    normals: np.ndarray  # (V, 3) float32


class Person:
    """The geometry of (identity, look) that does not depend on the shot: build once, photograph often."""

    def __init__(self, identity: Identity, look: Look, like: Person | None = None):
        """``like``: a Person whose geometry is reused if the identity is the same, and hair if that is the same."""
        self.head = head = load_head()
        self.identity, self.look = identity, look
        if like is not None and like.identity != identity:
            like = None
        if like is not None:
            self.base, self.skin, self.normals, self.eyes = like.base, like.skin, like.normals, like.eyes
        else:
            self.base = head.morph(shape_weights(head, identity))
            self.base[:, 1] += _SHOULDERS_UP * smoothstep(6.3, 5.65, head.vertices[:, 1])
            self.skin = (head.subdivide @ self.base).astype(np.float32)
            self.normals = mesh.vertex_normals(self.skin, head.tris, head.around)
            self.eyes = [_fit_sphere(self.base[index]) for index in head.eye_vertices]
        if like is not None and _groom(like.look) == _groom(look):
            self.hair = like.hair
        else:
            coarse = _collider(head)
            body, body_normals = self.skin[coarse], self.normals[coarse]
            self.hair = hair.grow(head, identity, look, self.skin, self.normals, body, body_normals)

    @property
    def hair_rgb(self) -> np.ndarray:
        """Linear RGB (3,) of the scalp hair, dyed or natural."""
        rgb = linear(HAIR[self.look.dye]) if self.look.dye else self.identity.hair_rgb
        return np.array(rgb, np.float32)

    @cached_property
    def hat(self) -> accessories.HatFit | None:
        return None if self.look.hat is None else accessories.fit_hat(self.look.hat, self.skin, self.head)

    def camera(self, shot: Shot, width: int) -> Camera:
        """Frames the posed neutral face, so that expressions do not move the frame."""
        pose = Pose(self, shot)
        corners = pose.head(self.skin[list(self.head.mouth_corners)])
        eyes = pose.head(np.stack([c + [0, 0, r] for c, r in self.eyes]))
        return aligned_camera(eyes, corners, shot.distance, width)

    def expressive(self, shot: Shot) -> np.ndarray:
        """Base vertices (B, 3) with the shot's expression."""
        return self.head.morph({f"expr/{name}": strength for name, strength in shot.action.items()}, self.base)


class Pose:
    """Rotates the head fully and the shoulders partly, with a blend along the neck."""

    def __init__(self, person: Person, shot: Shot):
        mouth = person.skin[person.head.mouth_corners[0], 1]
        self.pivot = np.array([0, (person.eyes[0][0][1] + mouth) / 2 - 0.2, 0.3])
        self.head_turn = mesh.rotation(shot.yaw, -shot.pitch, shot.roll)
        self.body_turn = mesh.rotation(shot.yaw * 0.45, 0, 0)

    def head(self, points: np.ndarray) -> np.ndarray:
        return (points - self.pivot) @ self.head_turn.T

    def direction(self, vectors: np.ndarray) -> np.ndarray:
        return vectors @ self.head_turn.T

    def __call__(self, points: np.ndarray, height: np.ndarray) -> np.ndarray:
        """Poses points; their canonical height (dm) determines the blend between head and shoulders."""
        share = smoothstep(5.6, 6.5, height)[..., None].astype(points.dtype)
        p = points - self.pivot.astype(points.dtype)
        head, body = (p @ turn.T.astype(points.dtype) for turn in (self.head_turn, self.body_turn))
        return body + (head - body) * share


def pose_person(person: Person, shot: Shot) -> tuple[list[Part], dict[str, Any]]:
    """All meshes of a shot in camera space, and extras: eye centres, base vertices, lenses, hair and beard."""
    head, look, pose = person.head, person.look, Pose(person, shot)
    base = person.expressive(shot)
    skin = (head.subdivide @ base).astype(np.float32)
    clothes = look.clothes
    cloth = regions.above_collar(head.smooth, clothes.height, clothes.depth, clothes.width)
    thick = (0.035 * smoothstep(-0.02, 0.03, cloth)).astype(np.float32)
    skin = skin + person.normals * thick[:, None]
    posed = pose(skin, head.smooth[:, 1]).astype(np.float32)
    parts = [Part("skin", posed, head.tris, mesh.vertex_normals(posed, head.tris, head.around))]

    ball, ball_tris = EYEBALL
    for name, squint, (centre, radius) in zip(("r_eye", "l_eye"), (0.03, -0.03), person.eyes, strict=True):
        local = ball @ mesh.rotation(shot.gaze[0] + squint, -shot.gaze[1], 0).T
        vertices = pose.head(local * radius * 0.985 + centre).astype(np.float32)
        parts.append(Part(name, vertices, ball_tris, pose.direction(local).astype(np.float32)))
    mouth = base.copy()
    inside = head.mouth_vertices
    middle = base[inside].mean(0)
    mouth[inside] = middle + (base[inside] - middle) * [0.86, 1, 0.9] - [0, 0, 0.08]
    # the upper incisors end slightly below the resting lip, so that a smile shows a row of teeth
    upper = np.unique(head.parts["teeth_upper"])
    incisors = upper[np.abs(head.vertices[upper, 0]) < 0.12]
    lip = person.skin[head.nearest(np.array([0, 6.62, 1.56])), 1]
    mouth[upper, 1] += np.clip(lip - _INCISORS - mouth[incisors, 1].min(), -0.12, 0.05)
    mouth = pose(mouth, head.vertices[:, 1])
    for name in ("teeth_upper", "teeth_lower", "tongue"):
        parts.append(_part(name, mouth, head.parts[name]))

    extras: dict[str, Any] = {"eyes": pose.head(np.stack([c for c, _ in person.eyes]))}
    extras["base"] = pose(base, head.vertices[:, 1]).astype(np.float32)
    if look.earrings:
        for ball_v, tris in accessories.earring_meshes(look.earrings, skin, head):
            parts.append(_part("earring", pose.head(ball_v), tris))
    if look.glasses is not None:
        frame, lenses = accessories.glasses_meshes(look.glasses, person.skin, head, person.eyes)
        parts.append(_part("glasses", pose.head(frame[0]), frame[1]))
        extras["lenses"] = (pose.head(lenses[0]).astype(np.float32), lenses[1])
    if look.hat is not None and person.hat is not None:
        for name, (vertices, tris) in accessories.hat_meshes(look.hat, person.hat).items():
            parts.append(_part(name, pose.head(vertices), tris))
    if person.hair is not None:
        points = person.hair.points
        extras["hair"] = pose(points, points[..., 1]).astype(np.float32)
        if person.hat is not None:
            extras["hair_hidden"] = accessories.sits_under(person.hat, points)
    beard = hair.grow_beard(head, look, skin, person.normals)
    if beard is not None:
        extras["beard"] = beard._replace(points=pose.head(beard.points).astype(np.float32))
    return parts, extras


def _part(name: str, vertices: np.ndarray, tris: np.ndarray) -> Part:
    vertices = vertices.astype(np.float32)
    return Part(name, vertices, tris, mesh.vertex_normals(vertices, tris))


def _groom(look: Look) -> tuple:
    return look.style, look.seed, look.part, look.length


def _collider(head: Head) -> np.ndarray:
    """Mask (V,) of every third vertex of the outer skin: enough to keep hair outside, and faster to search."""
    keep = (head.vertex_masks["inside_mouth"] < 0.1) & (head.vertex_masks["eyelids"] < 0.1)
    keep &= (head.vertex_masks["ears"] < 0.3) | (np.abs(head.smooth[:, 0]) < 0.8)
    return keep & (np.arange(len(keep)) % 3 == 0)


def _fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Least-squares sphere: centre (3,) and radius."""
    system = np.c_[2 * points, np.ones(len(points))]
    x = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
    return x[:3], float(np.sqrt(x[3] + x[:3] @ x[:3]))
