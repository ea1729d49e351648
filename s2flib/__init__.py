"""s2flib: from a witness's sketch to a face (pSp with CBAM attention loss before a frozen StyleGAN2)."""

__version__ = "0.1.0"
