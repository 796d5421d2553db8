"""`crosslingual-bench play`: a page in the browser that draws and searches in any language.

crosslingual-bench play
crosslingual-bench play --base emoji:sd --exports pea=runs/pea/adapter iap=runs/iap/encoder
crosslingual-bench play --base stable-diffusion-v1-5/stable-diffusion-v1-5 \
    --exports mulan=runs/sd15/adapter --mixed_precision fp16
"""

import importlib.util
import os
import socket
import tempfile
import threading

from crosslingual_benchmarks.play.plan import plan_page
from crosslingual_benchmarks.play.prompts import example_prompts
from crosslingual_benchmarks.play.settings import PlaySettings


def play(settings: PlaySettings) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        FileNotFoundError: a named adapter, report or base is not there.
        ValueError: gradio is not installed, the port is in use, or a setting that fits nothing.
    """
    check_address(settings.server_name, settings.server_port)
    if settings.max_waiting < 1:
        raise ValueError("--max_waiting is below 1: nobody could draw")
    plan = plan_page(settings)
    examples = example_prompts(plan.world)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("play needs gradio: pip install -e 'benchmarks[play]'")
    with tempfile.TemporaryDirectory(prefix="crosslingual-play-") as folder:
        # gradio reads these when it is imported, or when it stores a file
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        from crosslingual_benchmarks.play.models import Studio
        from crosslingual_benchmarks.play.page import build_page, launch_page

        studio = Studio(plan, settings)
        threading.Thread(target=studio.warm_up, daemon=True).start()
        page = build_page(studio, examples)
        address = launch_page(page, settings.server_name, settings.server_port)
        for note in plan.notes:
            print(note)
        print(f"{', '.join(studio.names)} on {plan.base}: {address} (Ctrl-C ends it)", flush=True)
        page.block_thread()


def check_address(server_name: str, server_port: int) -> None:
    """Refuses, by a ValueError, an address that this machine does not have and a port in use."""
    if not 0 <= server_port <= 65535:
        raise ValueError(f"--server_port {server_port} is no port: give one from 0 to 65535")
    try:
        family, kind, *_, place = socket.getaddrinfo(
            server_name, server_port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(1)
    except OSError as error:
        raise ValueError(
            f"the page cannot be served at {server_name}, port {server_port} "
            f"({error.strerror}): give another --server_port, 0 for any that is free, or another "
            "--server_name"
        ) from error
