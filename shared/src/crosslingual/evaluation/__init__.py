"""Retrieval metrics and the lines that results are kept in."""
