"""The edit pipeline's small text encoder: its tokens, and its pretraining.

InstructPix2Pix's CLIP text encoder is pretrained on English. Ours is trained from scratch, and the diffusion loss
teaches words slowly, since most pixels do not depend on them. It is therefore first trained for about a minute to
classify the edits of an instruction (kind and value, up to two), on training phrasings only
(instruct_pix2pix.vocabulary).

Only the few hundred tokens of the training phrasings are trained. All others of CLIP's 49,408 share one row, "unknown
word", which is also trained: words are sometimes replaced by it, so that the encoder learns to understand the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2flib.datasets.edit_pairs import Edits
from s2flib.instruct_pix2pix import vocabulary
from s2flib.instruct_pix2pix.networks import SIZE, TEXT_TOKENS, EditorSize, build_text_encoder
from s2flib.synthfaces.edits import Edit, all_words
from s2flib.synthfaces.phrases import KINDS

UNKNOWN, START, END = 0, -2, -1  # rows of the compact embedding; start and end are last, as in CLIP


class Words:
    """Instructions → compact ids (B, TEXT_TOKENS), and back to CLIP's full vocabulary at export.

    Compact ids: 0 is the shared unknown word, then the known tokens, then CLIP's start and end tokens.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        texts = [t.format(x="") for kind in KINDS for t in vocabulary.templates(kind)]
        texts += [*vocabulary._BEFORE, *vocabulary._AFTER, "and , also with"]
        texts += [w for k, more in vocabulary.SYNONYMS.items() for w in (k, *more)] + list(all_words())
        # a word's tokens depend only on whether it is joined to its neighbour ("blond-haired")
        found = {i for ids in tokenizer(texts, add_special_tokens=False)["input_ids"] for i in ids}
        self.known = sorted(found)
        self.size = len(self.known) + 3
        self.compact = np.zeros(len(tokenizer), np.int64)
        self.compact[self.known] = np.arange(1, len(self.known) + 1)
        self.compact[tokenizer.bos_token_id], self.compact[tokenizer.eos_token_id] = self.size - 2, self.size - 1
        self._cache: dict[str, list[int]] = {}

    def __call__(self, texts: list[str], rng: np.random.Generator | None = None) -> Tensor:
        """ids (B, TEXT_TOKENS); with ``rng``, 30 % of the instructions get unknown words or lose a word."""
        rows = np.full((len(texts), TEXT_TOKENS), self.size - 1, np.int64)
        rows[:, 0] = self.size - 2
        for row, text in zip(rows, texts, strict=True):
            ids = self._ids(text)
            if rng is not None and len(ids) > 3 and rng.random() < 0.3:
                ids = list(ids)
                place = int(rng.integers(len(ids) + 1))
                if rng.random() < 0.5:
                    ids[place:place] = [UNKNOWN] * int(rng.integers(1, 4))  # unknown words
                else:
                    ids[place : place + 1] = [] if rng.random() < 0.4 else [UNKNOWN]
            ids = ids[: TEXT_TOKENS - 2]
            row[1 : 1 + len(ids)] = ids
        return torch.from_numpy(rows)

    def _ids(self, text: str) -> list[int]:
        """Tokenizes word by word, where CLIP's tokenizer splits anyway, so that a small cache serves all sentences."""
        ids: list[int] = []
        for piece in text.split():
            if piece not in self._cache:
                found = self.tokenizer(piece, add_special_tokens=False)["input_ids"]
                self._cache[piece] = [int(self.compact[i]) for i in found]
            ids += self._cache[piece]
        return ids

    def compacted(self, encoder: nn.Module) -> dict[str, Tensor]:
        """The inverse of :meth:`full`: the state dict for the compact vocabulary."""
        state = {k: v.detach().cpu() for k, v in encoder.state_dict().items()}
        key = next(k for k in state if k.endswith("token_embedding.weight"))
        unknown = int(np.flatnonzero(self.compact == UNKNOWN)[0])
        marks = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id]
        state[key] = state[key][torch.tensor([unknown, *self.known, *marks])]
        return state

    def full(self, encoder: nn.Module, size: EditorSize = SIZE) -> nn.Module:
        """The trained encoder with CLIP's full vocabulary: all tokens that are not known have the unknown row."""
        out = build_text_encoder(len(self.tokenizer), size)
        state = {k: v.detach().cpu() for k, v in encoder.state_dict().items()}
        key = next(k for k in state if k.endswith("token_embedding.weight"))
        state[key] = state[key][torch.from_numpy(self.compact)]
        out.load_state_dict(state)
        return out.eval()


class EditClassifier(nn.Module):
    """The edits of an instruction: hidden states (B, L, W) → logits (B, classes), read at the first end token.

    A class is a kind with its value ("eye_color blue", "age older", "no_hat"); two changes are two classes.
    """

    def __init__(self, classes: list[str], width: int):
        super().__init__()
        self.names = classes
        self.head = nn.Linear(width, len(classes))

    def forward(self, states: Tensor, ids: Tensor, end: int) -> Tensor:
        last = (ids == end).int().argmax(1)  # first end token
        return self.head(states[torch.arange(len(ids), device=ids.device), last])


def class_name(edit: Edit) -> str:
    return f"{edit.kind} {edit.words}".strip()


def pretrain_text_encoder(
    encoder: Any, words: Words, requests: list[Edits], steps: int, seed: int, batch: int = 128, lr: float = 2e-3
) -> dict[str, float]:
    """Train ``encoder`` to classify instructions for ``steps`` batches; returns loss and accuracy of the last tenth.

    requests: the edits of the instructions. Every class is sampled equally often, sometimes with a second one of
    another kind in the same sentence.
    """
    example = {class_name(edit): edit for edits in requests for edit in edits}
    classes = sorted(example)
    place = {name: i for i, name in enumerate(classes)}
    classifier = EditClassifier(classes, encoder.config.hidden_size)
    opt = torch.optim.AdamW([*encoder.parameters(), *classifier.parameters()], lr, weight_decay=0.02)
    rng = np.random.default_rng([seed, 77])
    torch.manual_seed(seed)
    losses, correct = [], []
    encoder.train()
    for step in range(steps):
        texts, target = [], torch.zeros(batch, len(classes))
        for row in range(batch):
            picks = [example[classes[i]] for i in rng.choice(len(classes), 2, replace=False)]
            edits = tuple(picks) if picks[0].kind != picks[1].kind and rng.random() < 0.25 else (picks[0],)
            texts.append(vocabulary.sentence(edits, rng))
            target[row, [place[class_name(edit)] for edit in edits]] = 1
        ids = words(texts, rng)
        logits = classifier(encoder(ids).last_hidden_state, ids, words.size - 1)
        share = target / target.sum(1, keepdim=True)
        loss = F.cross_entropy(logits, share)
        for group in opt.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 50) * (1 - step / steps)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        losses.append(loss.item())
        correct.append(float((share.gather(1, logits.argmax(1, keepdim=True)) > 0).float().mean()))
    tail = max(1, steps // 10)
    return {"text_loss": float(np.mean(losses[-tail:])), "text_accuracy": float(np.mean(correct[-tail:]))}
