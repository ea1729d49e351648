"""Training: StyleGAN2 (``pretrain``), the pSp encoder (``encoder``), the judges' nets (``classifiers``)."""
