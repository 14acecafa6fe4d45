"""Chunk results on disk: safetensors first, then the JSON that marks the chunk as complete."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from i2l_model.lora.factors import LoraFactors
from i2l_model.lora.files import lora_formats, save_lora
from jobs import storage
from jobs.evaluation.chunk import ChunkResult
from jobs.evaluation.schema import PAGE_FOLDER, REPORT_FILE

CHUNKS = "chunks"
SAMPLES = "samples"
FEATURES = "features"
PICTURES = "pictures"


def write_chunk(output_uri: str, index: int, result: ChunkResult, *, inputs_hash: str) -> None:
    """Write sample files, tensors and last the JSON of one chunk."""
    for name, factors in result.loras.items():
        _write_lora(storage.join_uri(output_uri, SAMPLES, "loras", f"{name}.safetensors"), factors)
    for name, images in result.samples.items():
        _write_images(storage.join_uri(output_uri, SAMPLES, "images"), name, images)
    tensors = {f"{FEATURES}/{name}": tensor for name, tensor in result.features.items()}
    tensors |= {f"{PICTURES}/{name}": tensor for name, tensor in result.pictures.items()}
    storage.write_bytes(
        _chunk_uri(output_uri, index, "safetensors"),
        save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}),
    )
    record = {
        "inputs_hash": inputs_hash,
        "reader": result.reader,
        "values": result.values,
        "losses": result.losses,
        "seconds": result.seconds,
        "feature_styles": result.feature_styles,
    }
    storage.write_bytes(_chunk_uri(output_uri, index, "json"), json.dumps(record).encode())


def read_chunk(output_uri: str, index: int, *, inputs_hash: str) -> ChunkResult | None:
    """A complete chunk of the same inputs, else None; LoRAs and sample images stay on disk."""
    uri = _chunk_uri(output_uri, index, "json")
    if not storage.exists(uri):
        return None
    record = json.loads(storage.read_bytes(uri))
    if record["inputs_hash"] != inputs_hash:
        return None
    tensors = load_tensors(storage.read_bytes(_chunk_uri(output_uri, index, "safetensors")))
    return ChunkResult(
        reader=record["reader"],
        values=record["values"],
        losses=record["losses"],
        seconds=record["seconds"],
        feature_styles=record["feature_styles"],
        features=_section(tensors, FEATURES),
        pictures=_section(tensors, PICTURES),
    )


def clear_outputs(output_uri: str) -> None:
    """Remove what an evaluation of other inputs left behind: report, samples and chunks.

    Chunks go last. They tell that an evaluation wrote into the folder; without them, a folder
    that happens to be named samples is not ours to remove.
    """
    chunks = storage.join_uri(output_uri, CHUNKS)
    if not storage.exists(chunks):
        return
    for name in (REPORT_FILE, PAGE_FOLDER, SAMPLES):
        storage.delete(storage.join_uri(output_uri, name))
    storage.delete(chunks)


def png_bytes(image_CHW: Tensor) -> bytes:
    """A uint8 picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image_CHW.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _section(tensors: dict[str, Tensor], section: str) -> dict[str, Tensor]:
    prefix = f"{section}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _write_lora(uri: str, factors: LoraFactors) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lora.safetensors"
        portable, *_ = lora_formats(factors.lora_A)
        save_lora(factors.to("cpu"), path, portable, {"source": "i2l"})
        storage.write_bytes(uri, path.read_bytes())


def _write_images(folder_uri: str, name: str, images_KCHW: Tensor) -> None:
    style, _, condition = name.partition("/")
    for position, image in enumerate(images_KCHW):
        file = f"{style}-{condition.replace('@', '-')}-{position}.png"
        storage.write_bytes(storage.join_uri(folder_uri, file), png_bytes(image))


def _chunk_uri(output_uri: str, index: int, suffix: str) -> str:
    return storage.join_uri(output_uri, CHUNKS, f"chunk-{index:04d}.{suffix}")
