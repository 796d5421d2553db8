"""`tools/deploy/serve.py`, on the testbed's own pipeline, and the code on `tools/deploy.md`."""

import ast
import importlib.util
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from crosslingual.folders import publish_folder
from crosslingual.frozen.base import Base
from crosslingual_worlds.testing.conformance.pages import FENCE, check_page, help_of

testclient = pytest.importorskip("fastapi.testclient", reason="fastapi comes with gradio")

TOOLS = Path(__file__).parents[2] / "tools"
CONFIG = {"base": "testbed:sd", "languages": ["en"], "guidance_scale": 3.0}
PROMPT = {"prompt": "a large red star", "num_inference_steps": 2, "seed": 4}


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve", TOOLS / "deploy/serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pipe():
    return Base.open("testbed:sd").load_pipeline()


def draw(pipe, **options):
    noise = torch.Generator().manual_seed(4)
    return pipe(generator=noise, num_inference_steps=2, guidance_scale=3.0, **options).images[0]


def test_a_picture_over_http_is_the_pipelines_own_and_so_is_one_of_sent_embeddings(serve, pipe):
    client = testclient.TestClient(serve.create_app(pipe, CONFIG))
    expected = np.asarray(draw(pipe, prompt=PROMPT["prompt"]))
    answer = client.post("/generate", json=PROMPT)
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)
    parts = {"unet": pipe.unet, "vae": pipe.vae}
    pipe.register_modules(unet=None, vae=None)  # the encoder's process
    sent = load(client.post("/encode", json=PROMPT).content)
    assert set(sent) == {"prompt_embeds", "negative_prompt_embeds"}
    pipe.register_modules(**parts, text_encoder=None, tokenizer=None)  # the server of diffusers
    assert np.array_equal(np.asarray(draw(pipe, **sent)), expected)


def test_tokens_that_a_prompt_loses_are_told_and_bad_requests_are_refused(serve, pipe):
    client = testclient.TestClient(serve.create_app(pipe, CONFIG))
    assert client.get("/health").json() == {
        "base": "testbed:sd",
        "languages": ["en"],
        "num_requests": 0,
    }
    whole, cut = (PROMPT | {"prompt": "a red star" + " and a star" * n} for n in (0, 90))
    lost = [int(client.post("/encode", json=p).headers["x-tokens-cut"]) for p in (whole, cut)]
    assert lost[0] == 0 and lost[1] > 100
    is_json = {"content-type": "application/json"}
    half = "\ud800"  # of a pair of surrogates
    wrong = {"prompt": ["", "a" * 2001, half, None], "num_inference_steps": [51], "seed": [-1]}
    for name, value in ((name, value) for name, values in wrong.items() for value in values):
        body = json.dumps(PROMPT | {name: value})  # the client's own json= refuses the half
        answer = client.post("/generate", content=body, headers=is_json)
        assert answer.status_code == 422 and "should" in answer.text, (name, value)
    assert client.post("/generate", content=" " * 2**16, headers=is_json).status_code == 413
    assert client.get("/health").json()["num_requests"] == 0


def test_one_request_is_worked_on_at_a_time_and_too_many_are_refused(serve, pipe):
    running, most, refused = [], [], threading.Event()

    def wait(prompt, **options):
        running.append(prompt)
        most.append(len(running))
        assert refused.wait(60)
        running.remove(prompt)
        return SimpleNamespace(images=[Image.new("RGB", (8, 8))])

    wait.components, wait.device = pipe.components, pipe.device
    with testclient.TestClient(serve.create_app(wait, CONFIG, most_waiting=2)) as client:
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(client.post, "/generate", json=PROMPT) for _ in range(6)]
            answers = as_completed(asked)
            first = [next(answers).result() for _ in range(3)]  # while the others wait
            refused.set()
            last = [answer.result() for answer in answers]
    assert [answer.status_code for answer in (*first, *last)] == [503] * 3 + [200] * 3
    assert most == [1, 1, 1]
    assert all(answer.headers["retry-after"] == "10" for answer in first)


def test_a_folder_without_a_mark_and_one_that_was_changed_are_not_served(serve, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    with pytest.raises(ValueError, match="serve what `pea export` wrote"):
        serve.load("pea", str(folder))

    def fill(place):
        (place / "config.json").write_text("{}")

    publish_folder(folder, fill, kind="adapter")
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="is not as it was written"):
        serve.load("pea", str(folder))


def test_code_on_the_page_imports_what_there_is():
    text = (TOOLS / "deploy.md").read_text(encoding="utf-8")
    blocks = [code for language, code in FENCE.findall(text) if language == "python"]
    assert len(blocks) >= 4
    for node in (node for code in blocks for node in ast.walk(ast.parse(code))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("crosslingual"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_commands_on_the_page_exist_with_their_settings_and_files():
    skips = dict.fromkeys(["cd ", "METHOD=", "curl "], "they start a server and ask it")
    ours = dict.fromkeys("pea mulan iap altdiffusion mclip".split(), lambda *_: "--config")
    check_page(TOOLS / "deploy.md", {"crosslingual-bench": help_of, **ours}, skips)
