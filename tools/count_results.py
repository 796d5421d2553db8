"""Adds up the test results of tools/test.sh: `python tools/count_results.py FOLDER`.

The folder holds one JUnit file per package, and `failed_steps` with one line per failed step other
than tests (an installation, ruff). The exit code is 1 if anything failed.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def count_results(folder: Path) -> tuple[int, int]:
    """Sums passed and failed tests over the JUnit files; skipped tests count as neither."""
    num_passed = num_failed = 0
    for path in sorted(folder.glob("*.xml")):
        for suite in ElementTree.parse(path).iter("testsuite"):
            count = {
                name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")
            }
            failed = count["failures"] + count["errors"]
            num_failed += failed
            num_passed += count["tests"] - failed - count["skipped"]
    failed_steps = folder / "failed_steps"
    if failed_steps.exists():
        names = failed_steps.read_text().splitlines()
        print("failed besides tests:", ", ".join(names))
        num_failed += len(names)
    return num_passed, num_failed


def main() -> int:
    """Prints the sum as the last line."""
    num_passed, num_failed = count_results(Path(sys.argv[1]))
    print(f"{num_passed} passed, {num_failed} failed")
    return int(num_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
