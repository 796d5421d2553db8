"""Uploads, to a stand-in of the hub's API on this machine."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from crosslingual.adapter.artifact import save_artifact

CONFIG = {"method": "m", "base": "testbed:sd", "languages": ["de"]}


class Hub(http.server.ThreadingHTTPServer):
    """Takes models; `refuses` answers every call with a 403."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.calls: list[str] = []
        self.stored: dict[str, int] = {}
        self.refuses = False


class Answers(http.server.BaseHTTPRequestHandler):
    """What the hub's API answers to an upload, large files by Git LFS."""

    server: Hub

    def _answer(self, value: object, code: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _read(self) -> bytes:
        self.server.calls.append(f"{self.command} {self.path}")
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def do_POST(self) -> None:
        body, hub = self._read(), self.server
        end = self.path.rsplit("/", 1)[-1]
        if hub.refuses:
            return self._answer({"error": "this token may not write"}, 403)
        if end == "create":
            return self._answer({"url": f"{hub.address}/me/model"})
        if end == "validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if "preupload" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            files = [{"path": n, "uploadMode": modes[".safe" in n]} for n in names]
            return self._answer({"files": [{**f, "shouldIgnore": False} for f in files]})
        if end == "batch":
            objects = json.loads(body)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{hub.address}/up/{one['oid']}"}}
            return self._answer({"transfer": "basic", "objects": objects})
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines[1:]:
            hub.stored[line["value"]["path"]] = hub.stored.get(line["value"].get("oid", ""), -1)
        return self._answer({"commitUrl": f"{hub.address}/me/model/commit/1", "commitOid": "1"})

    def do_GET(self) -> None:
        self._read()
        self._answer({"id": "me/model", "sha": "0", "siblings": []})

    def do_PUT(self) -> None:
        self.server.stored[self.path.rsplit("/", 1)[-1]] = len(self._read())
        self._answer({})

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = {"weight": torch.ones(3)}
    return save_artifact(tmp_path / "adapter", state=state, config=CONFIG, card="# It")


def call(hub: Hub, home: Path, *words: str, token: str = "hf_x") -> tuple[int, str, str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_TOKEN": token, "HF_HOME": str(home)}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def push(hub: Hub, folder: Path, *flags: str, token: str = "hf_x") -> tuple[int, str, str]:
    words = ["-m", "crosslingual.cli.main", "push", str(folder), *flags]
    return call(hub, folder.parent / "home", *words, token=token)


def train(hub: Hub, folder: Path, **settings: Any) -> tuple[int, str, str]:
    """Trains in `folder / "run"`, with a login unless `token` is empty."""
    token = settings.pop("token", "hf_x")
    settings |= {"output_dir": str(folder / "run"), "push_to_hub": True}
    request = json.dumps({"settings": settings, "answers": str(folder)})
    program = str(Path(__file__).with_name("tiny_run.py"))
    return call(hub, folder / "home", program, request, token=token)


def test_an_exported_folder_is_uploaded_whole(hub: Hub, folder: Path) -> None:
    code, out, err = push(hub, folder, "--hub_model_id", "me/model")
    assert (code, out) == (0, f"{hub.address}/me/model\n"), err
    names = {path.name for path in folder.iterdir()}
    assert names <= hub.stored.keys()
    size = (folder / "model.safetensors").stat().st_size
    assert hub.stored["model.safetensors"] == size


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("token", "no login for the hub: log in with `hf auth login`"),
        ("id", "names no repository"),
        ("refused", "me/model is not uploaded (403"),
        ("unmarked", "is no exported folder"),
        ("changed", "model.safetensors"),
        ("missing", "no folder"),
    ],
)
def test_what_cannot_be_uploaded_is_one_line(hub: Hub, folder: Path, fault: str, says: str) -> None:
    hub.refuses = fault == "refused"
    if fault == "unmarked":
        (folder / "crosslingual.json").unlink()
    if fault == "changed":
        with (folder / "model.safetensors").open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"!")
    given = folder.with_name("other") if fault == "missing" else folder
    model_id = "me/my model" if fault == "id" else "me/model"
    token = "" if fault == "token" else "hf_x"
    code, _, err = push(hub, given, "--hub_model_id", model_id, token=token)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1
    assert fault == "refused" or not any("commit" in call for call in hub.calls)


def test_a_training_uploads_what_it_exported_at_its_end(hub: Hub, tmp_path: Path) -> None:
    code, out, err = train(hub, tmp_path, hub_model_id="me/model")
    assert code == 0 and out.endswith(f"{hub.address}/me/model\n"), err
    export = tmp_path / "run" / "export"
    assert {path.name for path in export.iterdir()} <= hub.stored.keys()
    assert hub.stored["model.safetensors"] == (export / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hub_model_id": "me/model", "token": ""}, "no login for the hub: log in with `hf auth"),
        ({}, "push_to_hub needs --hub_model_id"),
    ],
)
def test_a_training_that_could_not_upload_is_refused_before_any_work(
    hub: Hub, tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    code, _, err = train(hub, tmp_path, **changes)
    assert code == 2 and says in err, err
    assert not (tmp_path / "run").exists() and not hub.calls
