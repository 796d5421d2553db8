"""`python -m crosslingual_benchmarks VERB`, the same as `crosslingual-bench VERB`."""

import sys

from crosslingual_benchmarks.verbs import main

if __name__ == "__main__":
    sys.exit(main())
