"""Build CLIP's tokenizer from the BPE file inside the open_clip_torch wheel.

    python scripts/build_clip_tokenizer.py [--wheel FILE.whl] [--out DIR]

Without --wheel the pinned wheel is downloaded from PyPI by pip. Only its vocabulary (MIT) is read; its code is
neither run nor copied. The file lists byte-pair merges, most frequent first. CLIP's vocabulary is: the 256 bytes as
printable characters, the same at the end of a word, the first 48,894 merges, and the start and end tokens
(Radford et al., arXiv:2103.00020, based on Sennrich et al., arXiv:1508.07909). Ids are positions in that list.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import zipfile
from pathlib import Path

from convert_st_lpips import pinned_wheel
from transformers import CLIPTokenizer

from s2flib.files import write_text
from s2flib.instruct_pix2pix.networks import TEXT_TOKENS
from s2flib.instruct_pix2pix.pipeline import shipped_folder

PACKAGE = "open_clip_torch==3.3.0"
WHEEL_SHA256 = "c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce"
MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"
LICENCE = "open_clip_torch-3.3.0.dist-info/licenses/LICENSE"
SIZE = 49_408


def printable_bytes() -> list[str]:
    """A printable character for each of the 256 bytes: itself if printable, else one from U+0100 up.

    The order is the vocabulary's: printable ones first.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]


def vocabulary(lines: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The BPE file's lines, a comment first → {token: id} and the merges used."""
    merges = [tuple(line.split()) for line in lines[1 : SIZE - 2 * 256 - 2 + 1]]
    letters = printable_bytes()
    tokens = [*letters, *(c + "</w>" for c in letters), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--out", type=Path, default=shipped_folder() / "tokenizer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(pinned_wheel(arguments.wheel, PACKAGE, WHEEL_SHA256, folder)) as wheel:
            lines = gzip.decompress(wheel.read(MEMBER)).decode().split("\n")
            licence = wheel.read(LICENCE).decode()
    vocab, merges = vocabulary(lines)
    assert len(vocab) == SIZE
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_TOKENS).save_pretrained(arguments.out)
    # also as two plain files, the layout of the published pipelines, which transformers 4 reads
    write_text(arguments.out / "vocab.json", json.dumps(vocab, ensure_ascii=False), overwrite=True)
    write_text(arguments.out / "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), True)
    write_text(arguments.out / "LICENSE.txt", licence, overwrite=True)
    print(f"{arguments.out}: {len(vocab):,} tokens")


if __name__ == "__main__":
    main()
