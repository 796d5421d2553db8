"""The page of `crosslingual-bench play`, by its programmatic client and in a real browser."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from crosslingual_benchmarks.play.models import Studio
from crosslingual_benchmarks.play.plan import plan_page
from crosslingual_benchmarks.play.prompts import example_prompts
from crosslingual_benchmarks.play.settings import PlaySettings

pytest.importorskip("gradio", reason="the page needs gradio: pip install -e 'benchmarks[play]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a page on the testbed without adapters, and its examples."""
    folder = tmp_path_factory.mktemp("play")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        from crosslingual_benchmarks.play import page as pages

        patch.setattr(pages, "AT_ONCE", 2)
        settings = PlaySettings(runs=str(folder), num_pictures=20, num_inference_steps=4)
        settings.max_waiting = 3
        studio = Studio(plan_page(settings), settings)
        examples = example_prompts(studio.plan.world)
        page = pages.build_page(studio, examples)
        yield pages.launch_page(page, "127.0.0.1", 0), dict(examples)
        page.close()


@pytest.fixture(scope="module")
def client(served):
    """The page's programmatic client."""
    from gradio_client import Client

    return Client(served[0], verbose=False, analytics_enabled=False)


def test_a_program_draws_and_searches_in_any_language(served, client):
    prompt = served[1]["ar"]
    drawn = client.predict(prompt, 0, api_name="/draw")
    assert drawn.count("<img") == 1 and "Judge" in drawn and prompt in drawn and " ms" in drawn
    assert client.predict("star", api_name="/search").count("<img") == 8


@pytest.mark.parametrize("prompt", ["", "\x00", "x" * 100_000, "<b>${1+1}{{1}}</b>\u202e"])
def test_whatever_is_typed_is_answered(client, prompt):
    answered = client.predict(prompt, 0, api_name="/draw")
    assert "<b>${" not in answered and "{{" not in answered
    assert ("<img" in answered) == prompt.startswith("<b>")
    assert 'role="alert"' in answered or "<img" in answered


def test_a_full_queue_refuses_further_requests_and_draws_those_that_wait(served, client):
    def draw(number):
        try:
            return client.predict(served[1]["de"], number, api_name="/draw")
        except Exception as error:  # of the client's own kinds, which are not public
            return str(error)

    with ThreadPoolExecutor(12) as pool:
        answered = list(pool.map(draw, range(12)))
    drawn = sum("<img" in each for each in answered)
    assert drawn >= 4 and all("<img" in each or "ueue" in each for each in answered)
    assert "<img" in client.predict("red star", 0, api_name="/draw")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium")
def test_a_person_types_clicks_and_sees_a_picture(served, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    address, examples = served
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1200, "height": 900})
        asked = []
        view.on("request", lambda request: asked.append(request.url))
        view.goto(address, timeout=120_000)
        box = view.locator("#prompt textarea")
        box.wait_for(timeout=120_000)
        box.fill(examples["ar"])
        direction = "element => getComputedStyle(element).unicodeBidi"
        assert box.evaluate(direction) == "plaintext"  # Arabic begins at the right
        view.locator("#draw").click()
        picture = view.locator("#pictures img").first
        picture.wait_for(timeout=120_000)
        assert picture.evaluate("element => element.naturalWidth") == 192
        heading = view.locator("#pictures .play-prompt")
        assert heading.evaluate("element => getComputedStyle(element).direction") == "rtl"
        view.screenshot(path=tmp_path / "page.png", full_page=True)
        view.get_by_role("tab", name="Comparison").click()
        report = view.frame_locator("iframe.play-report")
        report.get_by_role("heading", level=1).wait_for(timeout=120_000)
        browser.close()
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:", "about:"))]
    assert not outside
