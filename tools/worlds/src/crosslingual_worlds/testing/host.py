"""What a program shares with the libraries that it calls, which they leave as they found it."""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import huggingface_hub.utils
import numpy as np
import torch
import transformers


def _state() -> dict[str, Any]:
    loggers = {"": logging.root, **logging.root.manager.loggerDict}
    known = {name: log for name, log in loggers.items() if isinstance(log, logging.Logger)}
    logs = {name: (log.level, log.disabled, [*log.handlers]) for name, log in known.items()}
    return {
        "logging": {name: log for name, log in logs.items() if log != (0, False, [])},
        "logging disabled": logging.root.manager.disable,
        "transformers' bars": transformers.utils.logging.is_progress_bar_enabled(),
        "diffusers' bars": diffusers.utils.logging.is_progress_bar_enabled(),
        "the hub's bars": huggingface_hub.utils.are_progress_bars_disabled(),
        "warnings": ([*warnings.filters], warnings.showwarning),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "streams": (sys.stdout, sys.stderr),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch": (torch.get_default_dtype(), torch.is_grad_enabled()),
        "seeds": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
    }


@contextmanager
def unchanged_host() -> Iterator[None]:
    """Asserts that the block changes nothing of the program around it, which has settings of its
    own: verbose libraries, filters, a variable.
    """
    logs = [library.utils.logging for library in (diffusers, transformers)]
    verbosities = [log.get_verbosity() for log in logs]
    os.environ["CROSSLINGUAL_TEST_HOST"] = "kept"
    for log in logs:
        log.set_verbosity_info()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="of the host alone")
        before = _state()
        try:
            yield
        finally:
            after = _state()
    for log, verbosity in zip(logs, verbosities, strict=True):
        log.set_verbosity(verbosity)
    changed = [name for name in before if before[name] != after[name]]
    assert os.environ.pop("CROSSLINGUAL_TEST_HOST") == "kept" and not changed, changed
