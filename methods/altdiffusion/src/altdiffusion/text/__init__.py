"""The text half, a program of its own: a student learns what CLIP's text encoder says (AltCLIP)."""
