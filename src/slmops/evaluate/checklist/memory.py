"""Does serving keep its memory?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from slmops.evaluate.checklist.line import Line, judged
from slmops.evaluate.checklist.served import Crashed, Served
from slmops.progress import Progress

NAME = "no memory growth"
ENOUGH = 2_000
"""Requests below which nothing is decided: allocators take their time to reach their size."""

MAX_KB_PER_1000 = 512.0
"""Half a kilobyte a request: half a gigabyte in a million."""

_POINTS = 200
"""Of the fitted line; the slopes between all pairs of more would take longer than they tell."""


def memory_growth(served: Served, texts: Sequence[str], requests: int, progress: Progress) -> Line:
    """The slope of the process's resident memory over the second half of a soak, one request after the other.

    Args:
        served: a fresh process, which serves nothing else.
        texts: asked in turn until there are `requests`.
    """
    sizes: list[float] = []
    with progress.task("soak", requests, "requests") as bar:
        for text in islice(cycle(texts), requests):
            outcome = served.predict(text)
            if isinstance(outcome, Crashed):
                return Line(NAME, "fail", f"crashed at request {len(sizes) + 1}", detail=outcome.how)
            sizes.append(served.rss_bytes / 1e3)
            bar.advance(1, MB=sizes[-1] / 1e3)
    slope, low, high = growth_kb_per_1000(sizes[len(sizes) // 2 :])
    figure = f"{slope:+,.0f} kB per 1,000 requests"
    bound = f"at most {MAX_KB_PER_1000:,.0f} kB"
    values = {"requests": requests, "kb_per_1000_requests": slope, "interval": [low, high], "rss_mb": sizes[-1] / 1e3}
    detail = f"{requests:,} requests, {sizes[0] / 1e3:,.0f} MB at the first, {sizes[-1] / 1e3:,.0f} MB at the last"
    if requests < ENOUGH:
        return Line(NAME, "skipped", figure, bound, f"not enough evidence: {detail}; {ENOUGH:,} are needed", values)
    return Line(NAME, judged(slope <= MAX_KB_PER_1000), figure, bound, detail, values)


def growth_kb_per_1000(sizes_kb: Sequence[float]) -> tuple[float, float, float]:
    """Slope of memory over requests and its 95 % interval, in kB per 1,000 requests.

    Theil (1950) and Sen (1968): the median of the slopes between all pairs of points, which single steps of an
    allocator do not move. Requests are taken together in blocks first, by their medians.

    Args:
        sizes_kb: one per request, in order; at least four.
    """
    import numpy as np
    from scipy.stats import theilslopes

    blocks = np.array_split(np.asarray(sizes_kb), min(_POINTS, len(sizes_kb)))
    ends = np.cumsum([len(block) for block in blocks])
    middles = ends - np.array([len(block) for block in blocks]) / 2
    slope, _, low, high = theilslopes([float(np.median(block)) for block in blocks], middles / 1000, 0.95)
    return float(slope), float(low), float(high)
