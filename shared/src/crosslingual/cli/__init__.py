"""Settings from flags and YAML, verbs, and the command `crosslingual`."""
