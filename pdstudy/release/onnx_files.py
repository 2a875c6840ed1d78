"""The two ONNX files of an exported folder: 32-bit, and with 8-bit weights, made from transformers' own model."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

from pdstudy.models import inference

OPSET = 18  # the first with everything that the exporter uses; ONNX Runtime reads it since 1.14
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # the extra [export]
EXAMPLE = (2, 16)  # (batch, length) of the exporter's input; both are free in the file


def lacking() -> str | None:
    """Return the first package of the extra [export] that is not installed, or None."""
    return next((name for name in NEEDED if find_spec(name) is None), None)


def write(folder: Path) -> None:
    """Write both ONNX files into a folder that transformers opens; batch and length are free in them.

    Attention is exported in its eager form: the fused kernel's graph is larger and no faster. The 8-bit file has a scale for each
    row of a weight matrix; the scales of activations are computed for every text.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain, small = (folder / inference.ONNX[precision] for precision in ("fp32", "int8"))
    plain.parent.mkdir()
    _export(inference.load_transformers(folder, "eager"), plain)
    model = onnx.load(plain)
    opset = next(o.version for o in model.opset_import if not o.domain)
    if opset != OPSET:  # the exporter only warns if it cannot convert
        raise ValueError(f"the exporter wrote ONNX opset {opset}, not {OPSET}; another version of torch or onnxscript may help")
    _remove_source_lines(model.graph)
    onnx.save(model, plain)
    prepared = plain.with_name("prepared.onnx")
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, small, per_channel=True, weight_type=QuantType.QInt8)
    prepared.unlink()
    onnx.checker.check_model(str(plain))
    onnx.checker.check_model(str(small))


def _export(model, file: Path) -> None:
    """Write a model of transformers as an ONNX file in fp32."""
    import torch

    class Logits(torch.nn.Module):
        """The model with its inputs in order and its logits alone."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            return self.model(**dict(zip(inference.INPUTS, inputs, strict=True))).logits

    # Three different tensors: of one tensor used twice, the exporter would make one input.
    example = (torch.ones(EXAMPLE, dtype=torch.long), torch.ones(EXAMPLE, dtype=torch.long), torch.zeros(EXAMPLE, dtype=torch.long))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    logger = logging.getLogger("torch.onnx")  # it lists packages for images that are not installed
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about its own names
            torch.onnx.export(
                Logits().eval(), example, file, input_names=inference.INPUTS, output_names=["logits"],
                opset_version=OPSET, dynamo=True, dynamic_shapes=((axes,) * len(inference.INPUTS),), external_data=False, verbose=False,
            )  # fmt: skip
    finally:
        logger.setLevel(level)


def _remove_source_lines(graph) -> None:
    """Remove the exporter's notes at every node, which have paths of this machine."""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
