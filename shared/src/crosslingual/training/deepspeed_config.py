"""A DeepSpeed JSON configuration, read and refused where DeepSpeed itself would go wrong silently.

DeepSpeed 0.19 ignores unknown top-level keys; inside of the sections it checks them itself.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosslingual.cli.settings import nearest_name
from crosslingual.data.text import parse_json

_KNOWN_KEYS = """
activation_checkpointing aio amp autotuning bf16 checkpoint comms_logger communication_data_type
compile compression_training csv_monitor comet curriculum_learning data_efficiency data_types
dataloader_drop_last disable_allgather disable_python_gc dump_state eigenvalue elasticity
expert_parallel flops_profiler fp16 gradient_accumulation_steps gradient_allreduce_op
gradient_clipping gradient_predivide_factor hybrid_engine log_level memory_breakdown nebula pipeline
prescale_gradients progressive_layer_drop seq_parallel_communication_data_type sparse_gradients
steps_per_print tensor_parallel tensorboard timers torch_autocast train_batch_size
train_micro_batch_size_per_gpu use_data_before_expert_parallelism wall_clock_breakdown wandb
weight_quantization zero_allow_untested_optimizer zero_force_ds_cpu_optimizer zero_optimization
""".split()
"""The top-level keys of https://www.deepspeed.ai/docs/config-json/ and of runtime/config.py."""


def read_config(config: str | Path | Mapping[str, Any], *, has_cuda: bool) -> dict[str, Any]:
    """Reads a DeepSpeed configuration, a JSON file or its content, and checks it.

    Raises:
        ValueError: for an unknown top-level key, an optimizer or scheduler (they are settings of
            the command), `bf16` at ZeRO stage 0, `fp16` on CPU.
        FileNotFoundError: for a file that does not exist.
    """
    if not isinstance(config, Mapping):
        path = Path(config)
        if not path.is_file():
            raise FileNotFoundError(f"no DeepSpeed config {path}; give an existing JSON file")
        try:
            config = parse_json(path.read_bytes())
            if not isinstance(config, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
    config = json.loads(json.dumps(config))
    for key in config:
        if key in ("optimizer", "scheduler"):
            raise ValueError(
                f"remove '{key}' from the DeepSpeed config: learning_rate, weight_decay and "
                "lr_scheduler are settings of the command"
            )
        if key not in _KNOWN_KEYS:
            raise ValueError(f"unknown DeepSpeed key '{key}'{nearest_name(key, _KNOWN_KEYS)}")
    for key in ("zero_optimization", "bf16", "fp16"):
        if not isinstance(config.get(key, {}), dict):
            raise ValueError(f"'{key}' of the DeepSpeed config must hold names and values")
    stage = config.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ValueError(f"the DeepSpeed config has the ZeRO stage {stage!r}; there are 0 to 3")
    if stage == 0 and config.get("bf16", {}).get("enabled"):
        raise ValueError(
            "bf16 at ZeRO stage 0 spoils Adam's first step; remove 'bf16' from the DeepSpeed "
            "config and set mixed_precision bf16, or use stage 1"
        )
    if not has_cuda and config.get("fp16", {}).get("enabled"):
        raise ValueError("fp16 needs a GPU; on CPU set mixed_precision to bf16 or no")
    return config


def settle_config(
    config: dict[str, Any], settings: Mapping[str, Any], *, mixed_precision: str
) -> None:
    """Writes a command's settings, batch sizes and clipping by DeepSpeed's names, into a
    configuration that leaves them out or agrees with them. bf16 is torch's autocast over fp32.

    Raises:
        ValueError: where the configuration says something else (`"auto"` agrees with everything).
    """
    for key, value in settings.items():
        if config.setdefault(key, value) not in (value, "auto"):
            raise ValueError(
                f"the DeepSpeed config has {key} {config[key]} and the settings make it {value}; "
                f"remove it from the config"
            )
        config[key] = value
    if mixed_precision not in ("no", "bf16"):
        raise ValueError(f"mixed_precision is no or bf16, not '{mixed_precision}'")
    if mixed_precision == "bf16":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    config.setdefault("steps_per_print", 1_000_000_000)
    config["zero_allow_untested_optimizer"] = True
    config["zero_force_ds_cpu_optimizer"] = False
