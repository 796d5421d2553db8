"""`crosslingual-bench cost`: what training costs, measured here and as published."""
