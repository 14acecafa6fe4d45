"""The demo page in a browser: images go in, a picture and a LoRA that loads come out."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from i2l_model.backbones import load_backbone
from i2l_model.lora.files import load_lora
from tests.pair_shards import draw

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# None: the browser of `playwright install chromium`
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where ``i2l demo`` says the page is."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "pipelines.cli.main", "demo"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("open http://127.0.0.1:"), line
        yield line.split()[1]
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(accept_downloads=True)
        page.goto(address)
        yield page
        browser.close()


def test_drawing_without_an_image_says_what_to_do(page: Page) -> None:
    page.locator("#draw").click()
    expect(page.get_by_text("drop an image first")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#download")).to_be_disabled()


def test_images_become_a_picture_and_a_lora_that_loads(page: Page, tmp_path: Path) -> None:
    files = []
    for content in ("circle", "cross"):
        files.append(tmp_path / f"{content}.png")
        draw(3, content).save(files[-1])
    page.locator("#references input[type=file]").set_input_files(files)
    expect(page.locator("#references img")).to_have_count(2, timeout=WAIT_MS)
    page.locator("#prompt textarea").fill("a house")
    page.locator("#draw").click()
    for name in ("styled", "plain"):
        picture = page.locator(f"#{name} img")
        expect(picture).to_be_visible(timeout=WAIT_MS)
        assert picture.evaluate("image => image.naturalWidth") == 256
    download = page.locator("#download")
    expect(download).to_be_enabled(timeout=WAIT_MS)
    with page.expect_download(timeout=WAIT_MS) as started:
        download.click()
    file = tmp_path / "style.safetensors"
    started.value.save_as(file)
    lora, metadata = load_lora(file)
    assert metadata["i2l.backbone"] == "tiny-zimage"
    assert set(lora.targets) == set(load_backbone("tiny-zimage").lora_targets())
    addresses = [page.locator(f"#{name} img").get_attribute("src") for name in ("styled", "plain")]
    styled, plain = (page.request.get(address).body() for address in addresses)
    assert styled != plain
