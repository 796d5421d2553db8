"""`crosslingual-bench cost`: the costs of training, measured here and published."""
