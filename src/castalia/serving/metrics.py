"""Numbers of a server in Prometheus' text format."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Mapping

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Seconds."""


class Metrics:
    """Counts and times; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._times: dict[str, tuple[list[int], float]] = {}

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += amount

    def took(self, name: str, seconds: float) -> None:
        """Note how long something took."""
        with self._lock:
            found, total = self._times.get(name, ([0] * (len(BUCKETS) + 1), 0.0))
            found[bisect.bisect_left(BUCKETS, seconds)] += 1
            self._times[name] = found, total + seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """All of them, and what is so now."""
        lines: list[str] = []
        with self._lock:
            counts, times = sorted(self._counts.items()), {k: (list(c), s) for k, (c, s) in self._times.items()}
        for name, number in gauges.items():
            lines += [f"# TYPE castalia_{name} gauge", f"castalia_{name} {number:g}"]
        last = ""
        for (name, labels), number in counts:
            if name != last:
                lines.append(f"# TYPE castalia_{name}_total counter")
                last = name
            inside = ",".join(f'{key}="{value}"' for key, value in labels)
            lines.append(f"castalia_{name}_total{{{inside}}} {number}" if inside else f"castalia_{name}_total {number}")
        for name, (found, total) in sorted(times.items()):
            lines.append(f"# TYPE castalia_{name}_seconds histogram")
            so_far = 0
            for bound, number in zip((*map(str, BUCKETS), "+Inf"), found, strict=True):
                so_far += number
                lines.append(f'castalia_{name}_seconds_bucket{{le="{bound}"}} {so_far}')
            lines += [f"castalia_{name}_seconds_sum {total:g}", f"castalia_{name}_seconds_count {so_far}"]
        return "\n".join(lines) + "\n"
