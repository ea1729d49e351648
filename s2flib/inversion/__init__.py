"""Inversion: from a photo to the code from which a StyleGAN2 generates that photo again. Seven methods, one a file."""

TITLES = {
    "w-plus": "W+ optimisation (Image2StyleGAN)",
    "projector": "StyleGAN2's projector",
    "pti": "Pivotal tuning (PTI)",
    "psp": "pSp",
    "e4e": "e4e",
    "restyle-psp": "ReStyle over pSp",
    "restyle-e4e": "ReStyle over e4e",
    "hyperstyle": "HyperStyle",
    "hyperinverter": "HyperInverter",
}
