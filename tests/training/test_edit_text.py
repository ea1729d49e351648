"""The edit pipeline's text encoder: its tokens and its pretraining."""

import numpy as np
import pytest
import torch

from s2flib.instruct_pix2pix import pipeline as edit_pipeline
from s2flib.instruct_pix2pix import vocabulary
from s2flib.instruct_pix2pix.networks import TEXT_TOKENS, build_text_encoder
from s2flib.synthfaces.edits import Edit
from s2flib.training.edit_text import UNKNOWN, Words, pretrain_text_encoder


@pytest.fixture(scope="module")
def words():
    return Words(edit_pipeline.load_tokenizer())


def test_instructions_become_compact_tokens(words):
    ids = words(["make the hair blond", "zyzzyva"])
    assert ids.shape == (2, TEXT_TOKENS) and ids.max() < words.size < 1000
    assert ids[0, 0] == words.size - 2 and ids[0, 5] == words.size - 1
    assert set(ids[1, 1:].tolist()) == {UNKNOWN, words.size - 1}
    known = words(
        [vocabulary.sentence((Edit("hat", "cap", "a baseball cap"),), np.random.default_rng(k)) for k in range(60)]
    )
    assert (known != UNKNOWN).all(), "every training sentence is in words that are trained"


def test_exported_text_encoder_says_the_same_with_clips_whole_vocabulary(words):
    torch.manual_seed(0)
    small = build_text_encoder(words.size).eval()
    full = words.full(small)
    text = "give this person glasses and blorb hair"
    ids = edit_pipeline.load_tokenizer()([text], padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(full(ids.input_ids).last_hidden_state, small(words([text])).last_hidden_state, atol=1e-5)
    again, original = words.compacted(full), small.state_dict()
    assert all(torch.equal(again[k], original[k]) for k in original)


def test_pretraining_teaches_what_is_asked_for(words):
    torch.manual_seed(0)
    wishes = [(Edit("hat", "cap", "a baseball cap"),), (Edit("no_hat", "", ""),), (Edit("no_beard", "none", ""),)]
    found = pretrain_text_encoder(build_text_encoder(words.size), words, wishes, steps=30, seed=0, batch=32)
    assert found["text_accuracy"] > 0.8
