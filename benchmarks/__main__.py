"""``python -m benchmarks NAME [ARGUMENTS]``."""

from __future__ import annotations

import runpy
import sys

NAMES = {
    "pose_pairs": ("benchmarks.pose_pairs",),
    "speed": ("benchmarks.speed.pair", "benchmarks.speed.matching"),
    "speed.pair": ("benchmarks.speed.pair",),
    "speed.matching": ("benchmarks.speed.matching",),
}


def main() -> None:
    """Run the modules behind a name with the remaining arguments."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        known = ", ".join(sorted(NAMES))
        raise SystemExit(f"usage: python -m benchmarks NAME [ARGUMENTS]; names: {known}")
    modules, arguments = NAMES[sys.argv[1]], sys.argv[2:]
    for module in modules:
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
