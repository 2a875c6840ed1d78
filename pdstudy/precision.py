"""What this processor multiplies fastest, which `precision: auto` becomes by name before anything is digested."""

from pathlib import Path


def best_precision(processor: Path = Path("/proc/cpuinfo")) -> str:
    """Return "bf16" where the processor multiplies that fastest, else "fp32". Reads no torch.

    Intel's tiles (AMX) do; its AVX-512 products alone run at half the speed of fp32 (`python benchmarks/precision.py`).
    AMD's are another make.
    """
    try:
        told = processor.read_text()
    except OSError:
        return "fp32"
    return "bf16" if "amx_bf16" in told or ("AuthenticAMD" in told and "avx512_bf16" in told) else "fp32"
