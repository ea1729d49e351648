"""Edit a face by words (the paper's second stage), with InstructPix2Pix under every preset.

    from s2flib.stylize import edit
    result = edit("face.png", "make the hair blond")        # result.image (H, W, 3) uint8; result.save("blond.png")

``editing`` is the call; ``inputs`` what it accepts; ``networks`` and ``pipeline`` the models and their files; ``pairs``
and ``paraphrases`` what they learn from; ``judge``, ``scores`` and ``report`` how well they do it. Training lies in
``s2flib.training.editor``.
"""

from s2flib.stylize.editing import Cancelled, Edited, EditSession, edit, edit_batch, keep_detail

__all__ = ["Cancelled", "EditSession", "Edited", "edit", "edit_batch", "keep_detail"]
