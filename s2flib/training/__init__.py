"""Training: StyleGAN2 (``generator``), the pSp encoder (``encoder``), judges (``classifiers``), editor (``edit_*``)."""
