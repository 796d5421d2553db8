"""The frozen models: diffusion bases, text encoders, CLIP, and their weights."""
