"""Judges: networks that measure how similar two faces are, in appearance (perceptual) and in identity.

| preset       | perceptual               | identity that trains        | identity that measures             |
|--------------|--------------------------|-----------------------------|------------------------------------|
| tiny         | ST-LPIPS (alex), shipped | SynthFaceID, shipped        | dlib's ResNet, shipped             |
| colab, paper | LPIPS (alex), downloaded | ArcFace IR-SE-50, downloaded| InceptionResnetV1 VGGFace2, downl. |

Evaluation never uses a network that training uses, because an encoder overfits to the network in its loss. A judge
whose weights are missing raises WeightsError; it is never replaced by another network or by random weights.
"""

from s2flib.judges.dlib_resnet import DlibResNet
from s2flib.judges.edit_judge import EditJudge, load_edit_judge
from s2flib.judges.load import LPIPS, IdentityJudge, attribute_net, identity_judge, loss_networks, perceptual_judge
from s2flib.judges.stlpips import STLPIPS
from s2flib.judges.synthface_id import SynthFaceID, face_crop, rank_1, verification_auc
