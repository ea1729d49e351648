"""Text-guided face editing with InstructPix2Pix (the paper's second stage), in every preset.

    from s2flib.instruct_pix2pix import edit
    result = edit("face.png", "make the hair blond")        # result.image (H, W, 3) uint8; result.save("blond.png")

``editing`` (the API), ``inputs`` (checks and prepares its input), ``vocabulary`` (the training words), ``networks``,
``unet`` and ``pipeline`` (the models and their files). Training is in ``s2flib.training`` (edit_*), evaluation in
``s2flib.evaluation``.
"""

from s2flib.instruct_pix2pix.editing import Cancelled, Edited, EditOptions, edit, edit_batch, keep_detail
from s2flib.instruct_pix2pix.session import EditSession
