"""Writes full-size bases with random weights, and runs PEA's whole pipeline on them.

    pip install -e 'methods/pea[test]'
    python tools/random_base.py write --shape sd15 --output_dir /tmp/sd15
    python tools/random_base.py check --folder /tmp/sd15 --resolution 512

`write` downloads nothing: shapes are those of `crosslingual.frozen.shapes`, tokenizers are the
testbed's, weights are noise in fp16 (SD 1.5 with XLM-R large: 3.3 GB on disk, SDXL: 8 GB).

`check` runs all steps on the two photographs that scikit-learn ships, captioned in English and
Chinese: folder -> shards -> features -> one training step -> a two-step picture. Each verb runs in
its own process, so that peak memory is measured per verb. The picture is noise.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from crosslingual.frozen.shapes import published_shape
from crosslingual.frozen.weights import resolve

BASES = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
ENCODERS = {
    "xlm-r-base": "FacebookAI/xlm-roberta-base",
    "xlm-r-large": "FacebookAI/xlm-roberta-large",
}
PHOTOGRAPHS = {
    "china.jpg": {
        "en": ["a colourful Chinese temple under a blue sky"],
        "zh": ["蓝天下一座色彩鲜艳的中国寺庙"],
    },
    "flower.jpg": {
        "en": ["a close-up of a pink dahlia among green leaves"],
        "zh": ["绿叶间一朵粉色大丽花的特写"],
    },
}
PROMPT = "蓝天下的红色寺庙"


def random_state(module: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Makes weights for a module on the meta device, one tensor at a time: norms are the identity,
    biases 0, and all other weights preserve the variance of their input.
    """
    state = {}
    for name, tensor in module.state_dict().items():
        if tensor.ndim < 2:
            value = float(name.endswith("weight"))
            state[name] = torch.full(tensor.shape, value, dtype=torch.float16)
        else:
            weights = torch.randn(tensor.shape, generator=generator)
            state[name] = weights.mul_(tensor.shape[1:].numel() ** -0.5).half()
    return state


def write_model(
    folder: Path, file_name: str, make: Callable[[], nn.Module], generator: torch.Generator
) -> None:
    """Writes a model's config.json and random weights."""
    with torch.device("meta"):
        module = make()
    folder.mkdir(parents=True)
    if hasattr(module.config, "save_pretrained"):
        module.config.architectures = [type(module).__name__]
        module.config.save_pretrained(folder)
    else:
        module.save_config(folder)
    save_file(random_state(module, generator), folder / file_name, {"format": "pt"})
    print(f"{folder}: {sum(p.numel() for p in module.parameters()):,} parameters", flush=True)


def write_base(shape: str, folder: Path, generator: torch.Generator) -> None:
    """Writes a diffusers pipeline of a published shape."""
    base, testbed = BASES[shape], Path(resolve("testbed:sd"))
    weights = "diffusion_pytorch_model.safetensors"
    index: dict[str, Any] = {"scheduler": ["diffusers", "DDIMScheduler"]}
    for part, name in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL")):
        make = partial(getattr(diffusers, name).from_config, published_shape(base, part))
        write_model(folder / part, weights, make, generator)
        index[part] = ["diffusers", name]
    end = json.loads((testbed / "text_encoder" / "config.json").read_text())["eos_token_id"]
    for part in ("text_encoder", "text_encoder_2"):
        config = published_shape(base, part)
        if config is None:
            continue
        name = config.pop("architectures")[0]
        config = transformers.CLIPTextConfig(**config | {"eos_token_id": end, "pad_token_id": end})
        make = partial(getattr(transformers, name), config)
        write_model(folder / part, "model.safetensors", make, generator)
        tokenizer = part.replace("text_encoder", "tokenizer")
        copied = transformers.AutoTokenizer.from_pretrained(
            testbed / "tokenizer",
            model_max_length=77,
            trust_remote_code=False,
        )
        copied.save_pretrained(folder / tokenizer)
        index |= {part: ["transformers", name], tokenizer: ["transformers", "CLIPTokenizer"]}
    if shape == "sd15":
        index |= {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None]}
        index["requires_safety_checker"] = False
    else:
        index |= {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
    shutil.copytree(testbed / "scheduler", folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))


def write(shape: str, encoder: str, output_dir: Path) -> None:
    """Writes `base` and `encoder` under a new folder."""
    output_dir.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    write_base(shape, output_dir / "base", generator)
    folder, shape_of = output_dir / "encoder", partial(published_shape, ENCODERS[encoder])
    config = transformers.XLMRobertaConfig(**shape_of("encoder"))
    make = partial(transformers.XLMRobertaModel, config, add_pooling_layer=False)
    write_model(folder, "model.safetensors", make, generator)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        resolve("testbed:xlm-r"),
        model_max_length=shape_of("tokenizer")["model_max_length"],
        trust_remote_code=False,
    )
    tokenizer.save_pretrained(folder)


def write_photographs(folder: Path) -> None:
    """Writes a user's folder: two JPEG files of 640 x 427 pixels with captions in two languages."""
    import sklearn.datasets

    source = Path(sklearn.datasets.__file__).parent / "images"
    folder.mkdir()
    lines = []
    for name, captions in PHOTOGRAPHS.items():
        shutil.copy(source / name, folder / name)
        fields = {"file_name": name, "captions": captions, "parallel": True}
        lines.append(json.dumps(fields, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(words: list[str]) -> None:
    """Runs a verb in a new process and prints its seconds and its peak memory.

    Pages of weights that are only mapped from disk count as resident. A peak below that of this
    process (some 200 MiB) cannot be measured, because a child inherits it.
    """
    print("$ " + " ".join(words), flush=True)
    program = (
        "import sys; from importlib.metadata import entry_points; sys.argv = sys.argv[1:];"
        "sys.exit(entry_points(group='console_scripts')[sys.argv[0]].load()())"
    )
    command = [sys.executable, "-c", program, *words]
    started = time.monotonic()
    _, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.executable, command), 0)
    seconds, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    if status != 0:
        raise SystemExit(f"error: {' '.join(words[:2])} ended with status {status}")
    print(
        f"  {words[0]} {words[1]}: {seconds:.0f} s, {cpu:.0f} s of CPU, "
        f"peak {usage.ru_maxrss / 1024:,.0f} MiB",
        flush=True,
    )


def check(folder: Path, resolution: int, mixed_precision: str, hidden_width: int) -> None:
    """Runs every verb from photographs to a picture, and measures each one."""
    run = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    print(f"in {run}; remove it afterwards")
    write_photographs(run / "photographs")
    models = ["--pretrained_model_name_or_path", str(folder / "base")]
    models += ["--text_encoder", str(folder / "encoder"), "--languages", "zh"]
    models += ["--resolution", str(resolution), "--hidden_width", str(hidden_width)]
    places = [str(run / name) for name in ("photographs", "shards", "features", "pea", "pictures")]
    photographs, shards, features, pea, pictures = places
    words = ["crosslingual", "shards", "--source", "folder", "--input", photographs]
    measure([*words, "--output_dir", shards])
    measure(["pea", "info", *models])
    words = ["pea", "features", *models, "--shards", shards, "--features_dir", features]
    measure([*words, "--encode_batch_size", "1"])
    words = ["pea", "train", *models, "--train_data", features, "--output_dir", pea]
    words += ["--max_train_steps", "1", "--train_batch_size", "1", "--lr_warmup_steps", "0"]
    measure([*words, "--mixed_precision", mixed_precision])
    words = ["pea", "generate", "--adapter", f"{pea}/adapter", "--prompt", PROMPT]
    words += ["--num_inference_steps", "2", "--height", str(resolution), "--width", str(resolution)]
    measure([*words, "--output_dir", pictures])


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    writing = verbs.add_parser("write", help="a base and an encoder with random weights")
    writing.add_argument("--shape", choices=BASES, default="sd15")
    writing.add_argument("--encoder", choices=ENCODERS, default="xlm-r-large")
    writing.add_argument("--output_dir", type=Path, required=True, help="a new folder")
    checking = verbs.add_parser("check", help="one training step and one picture at full size")
    checking.add_argument("--folder", type=Path, required=True, help="folder from `write`")
    checking.add_argument("--resolution", type=int, default=512, help="edge of pictures in pixels")
    checking.add_argument("--mixed_precision", choices=["no", "bf16"], default="no")
    checking.add_argument("--hidden_width", type=int, default=2048, help="1024 for SDXL")
    options = vars(parser.parse_args())
    {"write": write, "check": check}[options.pop("verb")](**options)


if __name__ == "__main__":
    main()
