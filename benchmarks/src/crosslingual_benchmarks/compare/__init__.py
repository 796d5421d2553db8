"""`crosslingual-bench compare` and `ablate`: a suite's arms, trained and measured."""
