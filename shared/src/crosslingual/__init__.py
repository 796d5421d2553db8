"""Frozen encoders and data loading for cross-lingual adaptation of text-to-image models."""
