"""Brings the emoji world onto this machine: packages, pictures, encoder."""

from tqdm import tqdm

from crosslingual_worlds.emoji.packages import PACKAGES, cache_folder, fetch_package


def fetch() -> None:
    """Fetches what is missing; stopped half-way, it goes on where it was.

    Raises:
        ValueError: a client, a package or a library is missing, or a hash differs.
    """
    folder = cache_folder() / "packages"
    for name, package in (bar := tqdm(PACKAGES.items(), desc="packages", unit="package")):
        bar.set_postfix_str(name)
        fetch_package(package, folder)
    try:
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise ValueError("pictures are drawn by resvg-py: pip install resvg-py") from error
    from crosslingual_worlds.emoji.e5 import make_e5
    from crosslingual_worlds.emoji.names import make_names
    from crosslingual_worlds.emoji.pictures import make_pictures

    make_names()
    make_pictures()
    print(f"emoji:e5 is {make_e5()}")
