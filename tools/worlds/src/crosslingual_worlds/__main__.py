"""`crosslingual-worlds fetch emoji`: what a world needs and is not shipped with it."""

import argparse
import sys

from crosslingual_worlds.emoji.fetch import fetch
from crosslingual_worlds.emoji.packages import PACKAGES, VARIABLE


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser("crosslingual-worlds", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("fetch", help="brings a world's packages into the cache")
    verb.add_argument(
        "world", choices=["emoji"], help=f"fetched into ${VARIABLE}, else ~/.cache/crosslingual"
    )
    parser.parse_args()
    try:
        fetch()
    except ValueError as error:
        sys.exit(f"crosslingual-worlds: {error}")
    for package in PACKAGES.values():
        print(f"{package.name} {package.version}: {package.attribution} ({package.licence})")


if __name__ == "__main__":
    main()
