"""The embedded picture world, its captions and judge, and the small models trained on it."""
