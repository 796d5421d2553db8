"""One yardstick for every cross-lingual method, found by the entry point `crosslingual.methods`."""
