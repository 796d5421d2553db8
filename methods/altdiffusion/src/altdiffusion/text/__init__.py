"""The text half, a separate program: trains a student to match CLIP's text encoder (AltCLIP)."""
