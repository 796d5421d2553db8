"""Shards at addresses and from commands."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from crosslingual.cli.main import main
from crosslingual.data.loader import ShardLoader
from crosslingual.data.tars import expand_shards
from crosslingual_worlds.testing.shards import open_loader, take_keys, write_folder


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Python's own server, and ranges of bytes, which it lacks.

    Attributes:
        ranges: whether it reads ranges and says so; None where it does not and says nothing.
    """

    ranges: bool | None = True

    def log_message(self, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:  # noqa: N802
        """A range of a file, or as always."""
        wanted, path = self.headers.get("Range"), Path(self.translate_path(self.path))
        if not (self.ranges and wanted and path.is_file()):
            super().do_GET()
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        data = path.read_bytes()
        part = data[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def end_headers(self) -> None:
        """Says whether ranges are read."""
        if self.ranges is not None:
            self.send_header("Accept-Ranges", "bytes" if self.ranges else "none")
        super().end_headers()


@pytest.fixture(params=[True, False, None])
def served(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, Path, bool | None]]:
    """A server's address, the folder that it serves, and whether it reads ranges."""
    pytest.importorskip("aiohttp")
    kind = type("Handler", (Ranges,), {"ranges": request.param})
    handler = functools.partial(kind, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path, request.param
        server.shutdown()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_shards_are_read_over_http(served: tuple[str, Path, bool | None], num_workers: int) -> None:
    address, folder, has_ranges = served
    shards = write_folder(folder / "s", [4, 4])
    if not has_ranges:
        with pytest.raises(ValueError, match="reads no ranges of files: copy the shards"):
            open_loader(f"{address}/s")
        return
    keys = take_keys(open_loader(shards), 4)
    for names in (f"{address}/s", f"{address}/s/{{00000..00001}}.tar"):
        assert take_keys(open_loader(names, num_workers=num_workers), 4) == keys


def test_shards_over_http_and_from_commands_are_written_anew(
    served: tuple[str, Path, bool | None], capsys: pytest.CaptureFixture[str]
) -> None:
    address, folder, _ = served
    write_folder(folder / "s", [4, 4])
    for number, names in enumerate((f"{address}/s", f"pipe:cat {folder}/s/{{00000..00001}}.tar")):
        words = ["shards", "--source", "webdataset", "--input", names, "--output_dir"]
        assert main([*words, str(folder / f"out{number}")]) == 0
    assert (folder / "out0/index.json").read_text() == (folder / "out1/index.json").read_text()
    for names, message in (
        ("pipe:exit 3", "exit 3"),
        (f"{address}/none.tar", "nothing is at http://"),
        (f"{address}/none", "no shard matches"),
        ("http://127.0.0.1:1/a.tar", "nothing is at http://127.0.0.1:1/a.tar (Client"),
        ("http://[/a.tar", "http://[/a.tar"),
    ):
        code = main([*words[:-2], names, "--output_dir", str(folder / "new")])
        error = capsys.readouterr().err
        assert (code, error.count("\n")) == (2, 1) and message in error


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("s3://bucket/a.tar", "reading s3:// takes another package: pip install s3fs"),
        ("gs://bucket/a.tar", "pip install gcsfs"),
        ("abfs://bucket/a.tar", "pip install adlfs"),
        ("foo://bucket/a.tar", "Protocol not known: foo"),
        ("pipe:cat a.tar", "is a stream, and samples are read at random: write shards of it first"),
    ],
)
def test_what_an_address_lacks_is_said_in_a_line(names: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardLoader(names, batch_size=1, seed=0, resolution=None)
    assert expand_shards("pipe:cat {0..1}.tar") == ["pipe:cat 0.tar", "pipe:cat 1.tar"]
