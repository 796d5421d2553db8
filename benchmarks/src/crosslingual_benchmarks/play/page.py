"""The page itself: three tabs of gradio around a `Studio`."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from crosslingual_benchmarks.play.cards import CSS, Card, cards_html, note, report_html, sentence
from crosslingual_benchmarks.play.prompts import check_prompt, check_seed

if TYPE_CHECKING:
    from crosslingual_benchmarks.play.models import Studio

NOT_JUDGED = "The judge reads only pictures of its world's own captions, such as the examples."
MAX_FILE_SIZE = "1mb"  # no part of the page takes a file
EXAMPLES_SHOWN = 40
AT_ONCE = 10  # requests whose pictures come in turns; further ones wait


def build_page(studio: "Studio", examples: list[tuple[str, str]]) -> gr.Blocks:
    """The page: a picture of each method for a prompt, pictures found by a text, the comparison."""
    prompts = [text for _, text in examples]
    page = gr.Blocks(title="crosslingual play", analytics_enabled=False, delete_cache=(600, 600))
    with page:
        gr.Markdown(f"# Prompts in any language\n\n{_about(studio)}")
        with gr.Tab("Draw"):
            _draw_tab(studio, prompts)
        with gr.Tab("Search"):
            _search_tab(studio, prompts)
        with gr.Tab("Comparison") as tab:
            shown = gr.HTML(label="comparison")
            tab.select(lambda: _report(studio), None, shown, api_visibility="private")
    page.queue(max_size=studio.settings.max_waiting)
    return page


def launch_page(page: gr.Blocks, server_name: str, server_port: int) -> str:
    """Serves the page from other threads, and returns its address."""
    _, address, _ = page.launch(
        server_name=server_name,
        server_port=server_port or None,
        prevent_thread_lock=True,
        share=False,
        inbrowser=False,
        quiet=True,
        show_error=False,
        enable_monitoring=False,
        max_file_size=MAX_FILE_SIZE,
        footer_links=[],
        ssr_mode=False,
        css=CSS,
    )
    return address


def _about(studio: "Studio") -> str:
    plan = studio.plan
    about = (
        f"Base: `{plan.base}`. All pictures of a prompt start from the same noise. The requests of "
        f"{AT_ONCE} people are answered in turns and up to {studio.settings.max_waiting} more "
        "wait; further ones are told that the queue is full: try those again."
    )
    return "\n\n".join([about, *plan.notes])


def _draw_tab(studio: "Studio", prompts: list[str]) -> None:
    with gr.Row():
        prompt = gr.Textbox(
            label="Prompt, in any language",
            max_lines=4,
            scale=5,
            elem_id="prompt",
        )
        seed = gr.Number(label="Seed of the noise", value=0, precision=None, scale=1)
        button = gr.Button("Draw", variant="primary", scale=1, elem_id="draw")
    pictures = gr.HTML(label="pictures", elem_id="pictures")
    gr.Examples(
        prompts,
        prompt,
        label="Examples",
        examples_per_page=EXAMPLES_SHOWN,
        elem_id="examples",
    )

    def draw(prompt: str, seed: float) -> Iterator[str]:
        """Pictures of a prompt by every method, as HTML."""
        yield from answer(lambda: _draw(studio, prompt, seed))

    _on_both(button, prompt, draw, [prompt, seed], pictures, "draw")


def _draw(studio: "Studio", prompt: Any, seed: Any) -> Iterator[str]:
    text, number = check_prompt(prompt), check_seed(seed)
    cards: list[Card] = []
    for card in studio.draw(text, number):
        cards.append(card)
        is_judged = any(each.is_right is not None for each in cards)
        end = note(NOT_JUDGED) if studio.plan.is_judged and not is_judged else ""
        yield cards_html(text, cards, len(studio.names) - len(cards)) + end


def _search_tab(studio: "Studio", prompts: list[str]) -> None:
    if not studio.search_names:
        gr.Markdown("Nothing to search: give --world a world whose pictures are searched.")
        return
    with gr.Row():
        query = gr.Textbox(
            label="What to look for, in any language",
            max_lines=4,
            scale=5,
            elem_id="query",
        )
        button = gr.Button("Search", variant="primary", scale=1, elem_id="search")
    found = gr.HTML(label="pictures found", elem_id="found")
    gr.Examples(prompts, query, label="Examples", examples_per_page=EXAMPLES_SHOWN)

    def search(query: str) -> Iterator[str]:
        """The nearest test pictures by every method that searches, as HTML."""
        yield from answer(lambda: _search(studio, query))

    _on_both(button, query, search, [query], found, "search")


def _search(studio: "Studio", query: Any) -> Iterator[str]:
    text, shown = check_prompt(query), ""
    for heading, cards in studio.search(text):
        shown += cards_html(heading, cards, is_small=True)
        yield shown


def answer(ask: Callable[[], Iterator[str]]) -> Iterator[str]:
    """What a handler yields, or the sentence of its ValueError."""
    try:
        yield from ask()
    except ValueError as error:
        yield sentence(error)


def _on_both(
    button: gr.Button, box: gr.Textbox, function: Any, inputs: list[Any], output: Any, name: str
) -> None:
    """A click and the Enter key do the same."""
    gr.on(
        [button.click, box.submit],
        function,
        inputs,
        output,
        api_name=name,
        show_progress="minimal",
        concurrency_limit=AT_ONCE,
        concurrency_id="models",
    )


def _report(studio: "Studio") -> str:
    path = studio.plan.report
    if path is None:
        return sentence("No comparison yet: crosslingual-bench compare writes its report.html.")
    return report_html(path.read_text("utf-8"))
