"""Face data sets: photos, sketches, masks, identities, attributes, edit pairs, and users' drawings.

``faces`` (SynthFaces, CelebAMask-HQ), ``celeba`` (the published folder's layout), ``attributes``, ``user_drawing``
(prepares any drawing for the encoder), ``align`` (crops any photo to the training frame), ``edit_pairs``.
"""

from s2flib.datasets.align import align_face
from s2flib.datasets.attributes import ATTRIBUTE_NAMES, attribute_targets
from s2flib.datasets.celeba import LABELS
from s2flib.datasets.edit_pairs import EditPairs, FreshPairs
from s2flib.datasets.faces import SPLITS, CelebAMaskHQ, FaceDataset, SynthFaces, open_dataset
from s2flib.datasets.user_drawing import Drawing, prepare_drawing
