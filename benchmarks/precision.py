"""Which precision this processor multiplies fastest: the products of a small student's step in fp32 and in bf16, on one thread.

python benchmarks/precision.py            writes benchmarks/results/precision.json

What `precision: auto` resolves to (precision.best_precision) follows from it: bf16 wins where there are tiles (AMX), and loses
where AVX-512's own bf16 products are all that there is.
"""

import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from pdstudy import machine
from pdstudy.machine import best_precision

SHAPES = ((832, 128, 384), (832, 128, 512), (832, 512, 128), (832, 256, 768), (832, 256, 1024), (832, 1024, 256))
PAIRS, REPEATS = 7, 40


def seconds(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    """Return the seconds of one forward product of (rows, in) by (in, out)."""
    rows, n_in, n_out = shape
    x, w = torch.randn(rows, n_in, dtype=dtype), torch.randn(n_out, n_in, dtype=dtype)
    for _ in range(5):
        torch.nn.functional.linear(x, w)
    begun = time.perf_counter()
    for _ in range(REPEATS):
        torch.nn.functional.linear(x, w)
    return (time.perf_counter() - begun) / REPEATS


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        pairs = [(seconds(shape, torch.float32), seconds(shape, torch.bfloat16)) for _ in range(PAIRS)]  # A B A B
        ratios = sorted(fp32 / bf16 for fp32, bf16 in pairs)
        flops = 2 * shape[0] * shape[1] * shape[2]
        rows.append(
            {
                "rows, in, out": shape, "pairs": PAIRS, "fp32_gflops": flops / statistics.median(a for a, _ in pairs) / 1e9,
                "bf16_gflops": flops / statistics.median(b for _, b in pairs) / 1e9,
                "bf16_times_as_fast": statistics.median(ratios), "least": ratios[0], "most": ratios[-1],
            }
        )  # fmt: skip
        print("{0[rows, in, out]}: fp32 {0[fp32_gflops]:.0f}, bf16 {0[bf16_gflops]:.0f} GFLOP/s".format(rows[-1]))
    flags = Path("/proc/cpuinfo").read_text().split()
    has = sorted({f for f in flags if f.startswith("amx") or f == "avx512_bf16"})
    record = {"auto": best_precision(), "has": has, "processor": machine.processor(), "torch": torch.__version__, "products": rows}
    record |= {
        "commit": machine.commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python benchmarks/precision.py",
    }
    (Path(__file__).parent / "results" / "precision.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
