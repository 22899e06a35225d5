"""Pictures from tar shards beside the same pictures in memory: ``python -m benchmarks.streaming``.

Writes PNGs of 28 x 28 (or JPEGs, ``--side``) to shards in a temporary folder; times opening, then batches of 128 in the
order of training, one process and one thread. ``--elsewhere`` lets a step pass as on an accelerator, and reads the next
batch meanwhile. The files are in the cache of the operating system, so the disk is not
measured. Memory is the largest that the process has held beyond what it held before.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from castalia.core.data import Order
from castalia.core.threads import cores
from castalia.media.image.decode import ImageOptions
from castalia.media.image.sources import open_images

BATCH = 128


def write(folder: Path, count: int, side: int, shard: int) -> None:
    """Smooth random pictures, so that they compress as photographs do."""
    rng = np.random.default_rng(0)
    for start in range(0, count, shard):
        with tarfile.open(folder / f"{start // shard:05}.tar", "w") as archive:
            for i in range(start, min(start + shard, count)):
                coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                picture, out = coarse.resize((side, side), Image.Resampling.BICUBIC), io.BytesIO()
                picture.save(out, "PNG" if side < 64 else "JPEG", quality=90)
                for suffix, data in (("png" if side < 64 else "jpg", out.getvalue()), ("cls", str(i % 10).encode())):
                    info = tarfile.TarInfo(f"{i:08}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def measure(folder: Path, size: int, stream: str, batches: int, elsewhere: float) -> None:
    """Open, read, and print a line for each way; ``elsewhere`` seconds a batch go by as on an accelerator."""
    options = replace(ImageOptions(size=size, channels=3), stream=stream)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    data = open_images(folder, options)
    opened = time.perf_counter() - started
    order = Order(len(data), BATCH, 0, data.blocks)
    what = "in memory" if stream == "never" else "tar shards"
    for ahead in (False, True) if elsewhere else (False,):
        data.batch(order.ids(0))
        started = time.perf_counter()
        for draw in range(1, batches + 1):
            data.batch(order.ids(draw))
            if ahead:
                data.expect(order.ids(draw + 1), max(1, cores() - 1))
            time.sleep(elsewhere)
        rate = BATCH * batches / (time.perf_counter() - started)
        held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        how = f", {1000 * elsewhere:.0f} ms elsewhere, {'read ahead' if ahead else 'in turn'}" if elsewhere else ""
        print(
            f"{what:10}  {len(data):,} pictures: opened in {opened:.2f} s, {rate:,.0f} pictures/s, {held:.0f} MiB{how}"
        )


def main() -> None:
    """Measure both ways, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--side", type=int, default=28, help="of the pictures in the files")
    parser.add_argument("--size", type=int, help="that they are read at; else their own")
    parser.add_argument("--shard", type=int, default=5_000, help="pictures in a shard")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--elsewhere", type=float, default=0, help="milliseconds that a step takes on another device")
    parser.add_argument("--here", nargs=2, metavar=("FOLDER", "STREAM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = options.size or options.side
    if options.here:
        measure(Path(options.here[0]), size, options.here[1], options.batches, options.elsewhere / 1000)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.count, options.side, options.shard)
        for stream in ("auto", "never"):
            here = [sys.executable, "-m", "benchmarks.streaming", "--here", folder, stream]
            here += ["--size", str(size), "--batches", str(options.batches), "--elsewhere", str(options.elsewhere)]
            subprocess.run(here, check=True)


if __name__ == "__main__":
    main()
