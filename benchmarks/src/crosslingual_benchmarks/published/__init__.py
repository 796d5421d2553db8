"""Published numbers, with source and strength; nothing that was measured here."""
