"""Networks as ONNX files: one file that says all about itself, for other runtimes and for a reader's browser.

A file holds the network, (x, t, y) -> its raw output, and as metadata what makes a denoiser of it: schedule, target, clip,
number of classes, image shape, and the SHA-256 of the weights it was made from. `OnnxNetwork` runs it through ONNX Runtime;
`checkpoints.load_onnx` makes it a denoiser that no sampler can tell from torch's. Needs the extra `export`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 18  # known to every runtime of the last years
FACTS = ("schedule", "target", "clip", "num_classes", "shape", "sha256")


def need(name: str) -> ModuleType:
    """The module of that name; ValueError that names the extra when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        reason = f"ONNX needs {name}, which is not installed: pip install 'diffusion_edu[export]'"
        raise ValueError(reason) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's progress, warnings and log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def to_onnx(net: nn.Module, shape: list[int], facts: dict[str, Any]) -> bytes:
    """An ONNX file of a class-conditional network.

    net: (x, t, y) -> like x. shape: (C, H, W) of one image. facts: metadata; each value is kept as JSON.
    Inputs of the file: x (N, C, H, W) float32, t (N,) float32 in [0, 1], y (N,) int64; output (N, C, H, W); any N >= 1.
    """
    need("onnxscript")
    onnx = need("onnx")
    example = (torch.zeros(2, *shape), torch.tensor([0.3, 0.7]), torch.tensor([0, 1]))
    batch = torch.export.Dim("batch", min=1)
    with quiet():
        program = torch.onnx.export(
            net.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            input_names=["x", "t", "y"],
            output_names=["output"],
            dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
        )
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.output, *model.graph.input, model.graph):
        part.ClearField("metadata_props")  # where in torch it came from: a tenth of the file
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


class OnnxNetwork(nn.Module):
    """A network in an ONNX file, called like torch's: (x_t, t, y) -> (N, C, H, W), computed by ONNX Runtime on the CPU.

    path: a file that `python -m diffusion_edu export` wrote. threads: of ONNX Runtime, 0 for its own choice. `facts`: the
    file's metadata. It knows no gradients. Raises ValueError for a file that is missing, damaged, or without the metadata.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        super().__init__()
        runtime = need("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        if not Path(path).is_file():
            raise ValueError(f"no ONNX file at {path}")
        try:
            self.session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, which have no public common parent
            raise ValueError(f"{path} is damaged or no ONNX file: {str(error).splitlines()[0]}") from None
        self.facts = read_facts(self.session.get_modelmeta().custom_metadata_map, path)
        self.num_classes, self.shape = self.facts["num_classes"], tuple(self.facts["shape"])

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"need images (N, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        if y is None:
            y = torch.full((len(x),), self.num_classes)
        inputs = {"x": x.float(), "t": t.float(), "y": y.long()}
        arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in inputs.items()}
        return torch.from_numpy(self.session.run(None, arrays)[0]).to(x)


def read_facts(metadata: dict[str, str], path: str | Path) -> dict[str, Any]:
    """The metadata that `to_onnx` wrote; ValueError when the file holds no denoiser of ours."""
    missing = [name for name in FACTS if name not in metadata]
    if missing:
        raise ValueError(f"{path} is no exported denoiser: its metadata lacks {', '.join(missing)}")
    return {name: json.loads(metadata[name]) for name in FACTS}
