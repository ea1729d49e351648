"""Judges: the nets that say how close two faces are, to the eye (perceptual) and as persons (identity).

| preset       | perceptual               | identity that trains        | identity that measures             |
|--------------|--------------------------|-----------------------------|------------------------------------|
| tiny         | ST-LPIPS (alex), shipped | SynthFaceID, shipped        | dlib's ResNet, shipped             |
| colab, paper | LPIPS (alex), downloaded | ArcFace IR-SE-50, downloaded| InceptionResnetV1 VGGFace2, downl. |

The net that measures is never the net that trains: an encoder learns to please the net in its loss. A judge
whose weights are not there raises WeightsError; none is ever replaced by another, or by random weights.
"""

from s2flib.judges.dlib_resnet import DlibResNet
from s2flib.judges.edit_judge import EditJudge, load_edit_judge
from s2flib.judges.load import (
    LPIPS,
    IdentityJudge,
    attribute_net,
    identity_judge,
    load_facenet,
    load_lpips,
    load_st_lpips,
    loss_networks,
    perceptual_judge,
)
from s2flib.judges.stlpips import STLPIPS
from s2flib.judges.synthface_id import SynthFaceID, face_crop, rank_1, verification_auc

__all__ = ["DlibResNet", "EditJudge", "IdentityJudge", "LPIPS", "STLPIPS", "SynthFaceID", "attribute_net", "face_crop", "identity_judge", "load_edit_judge", "load_facenet", "load_lpips", "load_st_lpips", "loss_networks", "perceptual_judge", "rank_1", "verification_auc"]
