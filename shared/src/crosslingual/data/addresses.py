"""Files at addresses that fsspec reads, such as `https://` and `s3://`: opened in one place, where
whatever fails becomes one line with the address.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import fsspec

_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs"}
_PACKAGES |= {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


@contextlib.contextmanager
def at_address(url: str) -> Iterator[tuple[Any, str]]:
    """The filesystem of an address or path, and the path in it. It is asked for anew each time,
    because a connection does not survive the fork into a worker.

    Raises:
        ValueError: no package here reads such addresses.
        FileNotFoundError: nothing is there.
        ConnectionError: it cannot be read now.
    """
    if "://" not in url:
        yield fsspec.core.url_to_fs(url)
        return
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        yield fsspec.core.url_to_fs(url)
    except ImportError as error:
        remedy = f"pip install {_PACKAGES[protocol]}" if protocol in _PACKAGES else str(error)
        raise ValueError(f"{url}: reading {protocol}:// takes another package: {remedy}") from error
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec also says so where no connection is made
        reason = f" ({type(cause).__name__}: {cause})" if cause else ""
        raise FileNotFoundError(f"nothing is at {url}{reason:.200}") from error
    except ValueError:
        raise
    # each filesystem has its own errors, which share no base
    except Exception as error:  # noqa: BLE001
        reason = f"{type(error).__name__}: {error}"
        raise ConnectionError(f"{url} cannot be read: {reason:.200}") from error
