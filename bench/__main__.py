"""``python -m bench [NAME…] [--quick]``: run benchmarks, all of them unless some are named."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Coroutine

from bench.conversations import conversations
from bench.front import front
from bench.history import history
from bench.pickup import pickup
from bench.recovery import recovery
from bench.ruler import Options, machine
from bench.turn_cpu import turn_cpu

BENCHMARKS: dict[str, Callable[[Options], Coroutine[None, None, None]]] = {
    "turn-cpu": turn_cpu,
    "conversations": conversations,
    "front": front,
    "pickup": pickup,
    "recovery": recovery,
    "history": history,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure PyFlue against its floors.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    given = parser.parse_args()
    for name in given.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    print(machine())
    for name in given.names or BENCHMARKS:
        began = time.monotonic()
        print(f"\n{name}")
        asyncio.run(BENCHMARKS[name](Options(quick=given.quick)))
        print(f"  ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
