"""Outputs of the frozen parts, computed once and read in training."""
