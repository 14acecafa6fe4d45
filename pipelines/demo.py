"""The demo page: reference images and a prompt in, a styled picture and its LoRA file out."""

import errno
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import gradio as gr
from gradio.components import Component
from PIL import Image

from i2l_model.errors import InputError
from i2l_model.guidance import Guidance
from i2l_model.lora.files import LoraFormat, lora_formats, save_lora
from pipelines.devices import load_for_style
from pipelines.drawing import Drawing, styled_and_plain
from pipelines.prediction import StylePredictor, lora_metadata, predictor_name
from pipelines.style_references import read_references

_TITLE = "i2L: images to a style LoRA"
_PROMPT = "a house"
_SHOWN_PX = 256  # smaller pictures are enlarged without smoothing
_MAX_UPLOAD = "64mb"
_UPLOADS_KEPT_S = (600, 3600)  # looked at so often, deleted at that age and at the end
_FILE_NAME = "i2l-style.safetensors"
_KEPT_LORAS = 8  # the page copies a file as soon as it offers it


class Demo:
    """What the page does, with predictor and backbone loaded once.

    Args:
        folder: A predictor.
        name: What the user calls it.
        backbone: Name, folder or hub id of the text-to-image model; None takes the predictor's.

    Raises:
        InputError: If either is broken, or they do not fit together.
    """

    def __init__(self, folder: Path, name: str, backbone: str | None) -> None:
        self.predictor = StylePredictor(folder)
        self.name = name
        self.backbone = load_for_style(backbone, self.predictor.backbone, "predictor")
        self.predictor.predictor.config.check_backbone(self.backbone)
        self._files = tempfile.TemporaryDirectory(prefix="i2l-demo-")
        self._folders: deque[Path] = deque()

    @property
    def max_refs(self) -> int:
        """Most reference images."""
        return self.predictor.predictor.config.max_refs

    @property
    def formats(self) -> tuple[LoraFormat, ...]:
        """Formats that a LoRA of this backbone can have."""
        return lora_formats([target.name for target in self.predictor.predictor.config.targets])

    def run(
        self,
        paths: Sequence[str],
        prompt: str,
        strength: float,
        guidance_scale: float,
        guidance: Guidance,
        steps: int,
        seed: int | None,
        file_format: LoraFormat,
    ) -> tuple[Image.Image, Image.Image, str]:
        """Return the picture with the style and without, and the path of the LoRA file.

        Raises:
            InputError: If there is no reference, or an argument does not fit.
        """
        if not paths:
            raise InputError("references", "none", "are missing", "drop an image first")
        references = read_references(paths)
        (prediction,) = self.predictor.predict([references], strength=strength)
        neutral = None
        if guidance == "neutral_negative":
            neutral = self.predictor.neutral(len(paths), strength=strength)
        drawing = Drawing((prompt,), seed or 0, steps, guidance_scale, guidance)
        (styled,), (plain,) = styled_and_plain(drawing, self.backbone, prediction.factors, neutral)
        file = self._new_folder() / _FILE_NAME
        metadata = lora_metadata(prediction, references, strength, self.name)
        save_lora(prediction.factors, file, file_format, metadata.header())
        return _enlarged(styled), _enlarged(plain), str(file)

    def _new_folder(self) -> Path:
        """Make a folder for one LoRA; the latest few stay."""
        if len(self._folders) == _KEPT_LORAS:
            shutil.rmtree(self._folders.popleft())
        self._folders.append(Path(tempfile.mkdtemp(dir=self._files.name)))
        return self._folders[-1]


def build_page(demo: Demo) -> gr.Blocks:
    """Lay out the page over a demo."""

    def run(gallery: list[tuple[str, Any]] | None, prompt: str, *options: Any) -> tuple[Any, ...]:
        paths = [path for path, _ in gallery or ()]
        try:
            styled, plain, file = demo.run(paths, prompt, *options)
        except InputError as error:
            text = str(error)
            for path in paths:  # the visitor knows a file by its name alone
                text = text.replace(path, Path(path).name)
            raise gr.Error(text, print_exception=False) from error
        return styled, plain, gr.update(value=file, interactive=True)

    page = gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=_UPLOADS_KEPT_S)
    with page:
        gr.Markdown(
            f"# {_TITLE}\nPredictor **{predictor_name(demo.name)}**, backbone "
            f"**{demo.backbone.name}**. Drop up to {demo.max_refs} images of one style; the LoRA "
            "is predicted in one forward pass."
        )
        with gr.Row():
            with gr.Column():
                inputs = _inputs(demo.formats)
                button = gr.Button("Draw", variant="primary", elem_id="draw")
            with gr.Column():
                outputs = _outputs()
        button.click(
            run,
            inputs,
            outputs,
            concurrency_limit=1,  # LoRAs are injected into the one backbone
            api_visibility="private",
        )
    return page


def _inputs(formats: Sequence[LoraFormat]) -> list[Component]:
    """What `Demo.run` takes, in order."""
    references = gr.Gallery(
        label="References",
        type="filepath",
        file_types=["image"],
        columns=4,
        height=220,
        sources=["upload", "clipboard"],
        elem_id="references",
        interactive=True,
    )
    prompt = gr.Textbox(_PROMPT, label="Prompt", elem_id="prompt")
    strength = gr.Slider(0, 2, 1, step=0.05, label="Strength (0 is no style)")
    scale = gr.Slider(1, 10, 2, step=0.25, label="Guidance scale (1 is off)")
    with gr.Accordion("More", open=False):
        known = list(get_args(Guidance))
        guidance = gr.Dropdown(known, value=known[0], label="What the negative branch carries")
        steps = gr.Slider(1, 100, 20, step=1, label="Steps")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    file_format = gr.Dropdown(list(formats), value=formats[0], label="LoRA file for")
    return [references, prompt, strength, scale, guidance, steps, seed, file_format]


def _outputs() -> list[Component]:
    """What `Demo.run` returns, in order."""
    labels = {"styled": "With the style", "plain": "Without"}
    with gr.Row():
        pictures = [
            gr.Image(label=label, elem_id=name, format="png", buttons=["download", "fullscreen"])
            for name, label in labels.items()
        ]
    return [
        *pictures,
        gr.DownloadButton("Download the LoRA", interactive=False, elem_id="download"),
    ]


def check_address(host: str, port: int | None) -> None:
    """Refuse an address that cannot be listened on, before any model is loaded for it.

    Raises:
        InputError: If the host is not of this machine, or the port is taken or not allowed.
    """
    if host.count(":") > 1 and not host.startswith("["):  # gradio builds a URL from it
        raise InputError("--host", host, "is IPv6 without brackets", f"write [{host}]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port or 0, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except (OSError, UnicodeError) as error:
        code = error.errno if isinstance(error, OSError) else None
        if port is not None and code in (errno.EADDRINUSE, errno.EACCES):
            problem = "is taken" if code == errno.EADDRINUSE else "is not allowed to you"
            raise InputError("--port", port, problem, "name another") from error
        fix = "use 127.0.0.1, or 0.0.0.0 for all"
        raise InputError("--host", host, "is no address of this machine", fix) from error


def serve(page: gr.Blocks, host: str, port: int | None) -> str:
    """Start the page and return its address; it runs until `gr.Blocks.close`.

    Raises:
        InputError: If the port is taken.
    """
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            share=False,
            ssr_mode=False,
            max_file_size=_MAX_UPLOAD,
            footer_links=[],
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )
    except OSError as error:
        value = port or "the first free one from 7860"
        raise InputError("--port", value, "cannot be opened", "name another") from error
    return str(address)


def _enlarged(image: Image.Image) -> Image.Image:
    factor = -(-_SHOWN_PX // max(image.size))
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST) if factor > 1 else image
