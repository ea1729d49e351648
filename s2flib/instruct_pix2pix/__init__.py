"""Edit a face by words (the paper's second stage), with InstructPix2Pix under every preset.

    from s2flib.instruct_pix2pix import edit
    result = edit("face.png", "make the hair blond")        # result.image (H, W, 3) uint8; result.save("blond.png")

``editing`` is the call; ``inputs`` what it accepts; ``vocabulary`` the words it knows; ``networks``, ``unet`` and
``pipeline`` the models and their files. Training is in ``s2flib.training`` (edit_*), evaluation in ``s2flib.evaluation``.
"""

from s2flib.instruct_pix2pix.editing import Cancelled, Edited, EditSession, edit, edit_batch, keep_detail

__all__ = ["Cancelled", "EditSession", "Edited", "edit", "edit_batch", "keep_detail"]
