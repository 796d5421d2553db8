"""`crosslingual-bench recommend`: which method, why, and on whose numbers."""
