"""Training of the direct sketch-to-photo matcher (evaluation/matcher.py) on training people.

Each step compares a batch of drawings with one photo of every training person: the softmax over all people must choose
the right one (InfoNCE, van den Oord et al. 2018, arXiv:1807.03748, with everybody as a negative). The right person's
photo is another shot than the drawing's wherever there is one, as in the line-up. Photos are embedded once, by the
training identity judge.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s2flib.datasets.faces import FaceDataset, SynthFaces, open_dataset
from s2flib.datasets.live import Pool
from s2flib.errors import S2FError
from s2flib.evaluation.lineup import gallery_indices, rank_probes
from s2flib.evaluation.matcher import KIND, SIDE, SketchMatcher, drawing_crop
from s2flib.files import available_cpus
from s2flib.images import as_float, contact_sheet, to_array
from s2flib.judges.load import identity_judge
from s2flib.judges.synthface_id import FACE_CENTRE, face_crop
from s2flib.presets import get_preset
from s2flib.training.classifiers import ClassifierConfig, ClassifierTrainer
from s2flib.training.loop import run_training
from s2flib.training.sketch_styles import varied_sketches
from s2flib.training.trainer import make_accelerator


@dataclass(frozen=True, kw_only=True)
class MatcherConfig(ClassifierConfig):
    """One run of the matcher's training."""

    steps: int = 3000
    batch: int = 64  # drawings per step
    people: tuple[str, ...] = ()  # folders of s2f render-people, in addition to the training split
    lines: float = 0.6  # share of line drawings; the others are pencil sketches of varied style
    scale: float = 20.0  # of the cosines in the softmax


@dataclass(frozen=True)
class DrawnPeople:
    """Photos (N, 3, S, S), masks (N, S, S) and line drawings (N, S, S), uint8; person (N,): 0 … P − 1, in order."""

    photos: Tensor
    masks: Tensor
    drawings: Tensor
    person: Tensor

    def __len__(self) -> int:
        return len(self.person)

    def joined(self, other: DrawnPeople) -> DrawnPeople:
        """Both together, as different people."""
        person = torch.cat([self.person, other.person + int(self.person.max()) + 1])
        pairs = ((self.photos, other.photos), (self.masks, other.masks), (self.drawings, other.drawings))
        photos, masks, drawings = (torch.cat(pair) for pair in pairs)
        return DrawnPeople(photos, masks, drawings, person)


def read_split(ds: FaceDataset) -> DrawnPeople:
    """A split of SynthFaces in memory; S2FError for a data set without line drawings."""
    if not isinstance(ds, SynthFaces):
        raise S2FError("the matcher needs line drawings, which only SynthFaces has: choose a rendered data set.")

    def read(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, mask = ds.read(i)
        if len(photo) != ds.size:
            raise S2FError(f"the matcher trains at {ds.size} px, not {len(photo)}: render the data set at {ds.size}.")
        return photo.transpose(2, 0, 1), mask, ds.drawing(i)

    with ThreadPoolExecutor(available_cpus()) as pool:
        parts = zip(*pool.map(read, range(len(ds))), strict=True)
    photos, masks, drawings = (torch.from_numpy(np.stack(part)) for part in parts)
    person = torch.from_numpy(np.unique(ds.identities, return_inverse=True)[1])
    if (person.diff() < 0).any():
        raise S2FError("the photos of the data set are not sorted by person: render it again with s2f render.")
    return DrawnPeople(photos, masks, drawings, person)


def read_pool(folders: tuple[str, ...]) -> DrawnPeople:
    """The people rendered so far in folders of ``s2f render-people``, one photo each."""
    pool = Pool(folders)
    photos, masks, drawings, _ = (torch.from_numpy(a) for a in pool.batch(np.arange(len(pool))))
    return DrawnPeople(photos, masks, drawings, torch.arange(len(pool)))


def other_photos(person: Tensor, drawn: Tensor) -> Tensor:
    """A random photo of every person, and for those drawn in this batch another one than the drawing's source.

    person (N,): of each photo, sorted; drawn (B,): photos whose drawings are in the batch → (P,) photos. A person with
    one photo keeps it.
    """
    counts = torch.bincount(person)  # (P,) photos of each person
    first = counts.cumsum(0) - counts
    picked = (torch.rand(len(counts), device=person.device) * counts).long().clamp(max=counts - 1)
    who = person[drawn]
    own = drawn - first[who]
    picked[who] = torch.where(picked[who] == own, (own + 1) % counts[who], picked[who])
    return first + picked


def jittered(x: Tensor, size: int) -> Tensor:
    """Random crops of drawings around the face, half of them mirrored: (B, 1, H, H) → (B, 1, size, size)."""
    b, device = len(x), x.device

    def uniform(reach: float) -> Tensor:
        return (torch.rand(b, device=device) * 2 - 1) * reach

    scale, angle = SIDE * (1 + uniform(0.07)), uniform(0.07)  # radians
    mirror = torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(b, 2, 3, device=device)  # output → input, both in [−1, 1]
    theta[:, 0, 0], theta[:, 0, 1] = mirror * scale * angle.cos(), -scale * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = mirror * scale * angle.sin(), scale * angle.cos()
    theta[:, 0, 2] = 2 * FACE_CENTRE[0] - 1 + uniform(0.06)
    theta[:, 1, 2] = 2 * FACE_CENTRE[1] - 1 + uniform(0.06)
    grid = F.affine_grid(theta, [b, 1, size, size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


class MatcherTrainer(ClassifierTrainer):
    """InfoNCE against one photo of every training person; validated in a line-up of the val people."""

    kind = "sketch-matcher-training"

    def __init__(self, cfg: MatcherConfig, accelerator):
        if get_preset(cfg.preset).data != "synthfaces":
            raise S2FError(f"preset {cfg.preset} has no line drawings to train on: train with preset tiny.")
        torch.manual_seed(cfg.seed)
        train = open_dataset(cfg.preset, "train", cfg.data, cfg.limit)
        val = open_dataset(cfg.preset, "val", cfg.data, cfg.val_limit)
        super().__init__(cfg, accelerator, SketchMatcher())
        people = read_split(train)
        self.people = people.joined(read_pool(cfg.people)) if cfg.people else people
        self.person = self.people.person.to(self.device)
        self.judge = identity_judge(cfg.preset, role="train").to(self.device)
        self.photos = self.embedded(self.people.photos)  # (N, 128)
        self.read_val(val)

    def embedded(self, photos: Tensor) -> Tensor:
        """The training judge's embeddings of photos (N, 3, S, S) uint8 → (N, 128), on the trainer's device."""
        with torch.no_grad():
            return torch.cat([self.judge.embed(as_float(part.to(self.device))) for part in photos.split(256)])

    def read_val(self, val: FaceDataset) -> None:
        """One pencil sketch and one line drawing of each val person, and another photo as the gallery."""
        galleries, probes = gallery_indices(val.identities, np.asarray(val.names))
        first = probes[np.unique(val.identities[probes], return_index=True)[1]]
        gallery = galleries[0]
        held = read_split(val)
        self.val_people = val.identities[first], val.identities[gallery]
        self.val_photos = as_float(held.photos[gallery])
        self.val_embedded = self.embedded(held.photos[gallery])
        line = held.drawings[first][:, None].float() / 255
        pencil = torch.stack([val[int(i)]["sketch"] for i in first])
        self.val_drawings = {k: drawing_crop(x, SketchMatcher.size) for k, x in (("pencil", pencil), ("line", line))}

    def batch_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        i = self.draw(len(self.people))
        photo, mask, line = (getattr(self.people, k)[i].to(self.device) for k in ("photos", "masks", "drawings"))
        x = varied_sketches(as_float(photo), mask, line[:, None].float() / 255, self.cfg.lines)
        x = jittered(x, SketchMatcher.size)
        gallery = self.photos[other_photos(self.person, i.to(self.device))]  # (P, 128)
        with self.autocast():
            embedding = self.net(x)
        assert isinstance(self.net, SketchMatcher)
        logits = self.cfg.scale * embedding.float() @ self.net.gallery(gallery).float().T  # (B, P)
        target = self.person[i.to(self.device)]
        loss = F.cross_entropy(logits, target)
        return loss, {"infonce": loss.detach(), "accuracy": (logits.argmax(1) == target).float().mean().detach()}

    @torch.no_grad()
    def val_gallery(self) -> Tensor:
        """The val gallery in the averaged network's space, on the CPU: (P, 128)."""
        net = self.average.module
        assert isinstance(net, SketchMatcher)
        return net.gallery(self.val_embedded).cpu()

    def validate(self) -> dict[str, float]:
        """rank-1 of pencil sketches and of line drawings, among all val people."""
        drawn, there = self.val_people
        gallery = self.val_gallery().numpy()
        out = {}
        for kind, x in self.val_drawings.items():
            out[f"rank_1_{kind}"] = rank_probes(self.batched(x).numpy(), drawn, gallery, there).rate(1).value
        return out

    def picture(self) -> np.ndarray:
        """Columns: a line drawing, the photo found for it, and the right person's photo."""
        x = self.val_drawings["line"][:12]
        found = (self.batched(x) @ self.val_gallery().T).argmax(1)
        drawn, there = self.val_people
        right = torch.from_numpy(np.searchsorted(there, drawn[: len(x)]))
        photos = face_crop(self.val_photos[torch.cat([found, right])], SketchMatcher.size, SIDE)
        drawings = (x * 2 - 1).expand(-1, 3, -1, -1)
        return contact_sheet(to_array(torch.cat([drawings, photos])), columns=len(x))

    def export(self, out: Path) -> None:
        self.save_weights(out, KIND, people=str(int(self.person.max()) + 1))


def train_matcher(cfg: MatcherConfig) -> Path:
    """Run the training; returns ``out/sketch-matcher.safetensors`` (float16, the averaged weights)."""
    run_training(MatcherTrainer(cfg, make_accelerator(cfg.cpu)))
    return Path(cfg.out) / f"{KIND}.safetensors"
