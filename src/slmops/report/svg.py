"""Drawing by hand: scales, axes and marks as SVG text whose colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

from slmops.report.words import three, visible

CHARACTER = 6.6
"""About the width of a character of the labels, in pixels of the drawing."""


@dataclass(frozen=True)
class Scale:
    """Data from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = map(math.log10, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (at - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values on the scale: 1, 2 and 5 times a power of ten where it is logarithmic."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = [d * 10.0**p for p in powers for d in digits if self.low <= d * 10.0**p <= self.high]
                if len(found) <= most:
                    break
            if len(found) > 1:
                return found[:: math.ceil(len(found) / most)]
        rough = (self.high - self.low) / most or 1
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass
class Drawing:
    """An SVG in the making; everything written into it is escaped."""

    width: float
    height: float
    left: float = 46
    right: float = 14
    top: float = 14
    bottom: float = 42
    parts: list[str] = field(default_factory=list)

    def x_scale(self, low: float, high: float, *, log: bool = False) -> Scale:
        return Scale(low, high, self.left, self.width - self.right, log)

    def y_scale(self, low: float, high: float, *, log: bool = False) -> Scale:
        return Scale(low, high, self.height - self.bottom, self.top, log)

    def x_axis(self, scale: Scale, label: str, format: Callable[[float], str] = three) -> None:
        floor = self.height - self.bottom
        self.line(self.left, floor, self.width - self.right, floor, "axis")
        for tick in scale.ticks(max(2, int((self.width - self.left) / 80))):
            self.line(scale(tick), floor, scale(tick), floor + 4, "axis")
            self.text(scale(tick), floor + 17, format(tick), "tick", "middle")
        self.text(self.width - self.right, self.height - 6, label, "label", "end")

    def y_axis(self, scale: Scale, label: str, format: Callable[[float], str] = three) -> None:
        for tick in scale.ticks(5):
            self.line(self.left, scale(tick), self.width - self.right, scale(tick), "grid")
            self.text(self.left - 8, scale(tick) + 4, format(tick), "tick", "end")
        self.text(0, 10, label, "label", "start")

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.parts.append(f'<path class="{kind}" d="M{steps}"/>')

    def dot(self, x: float, y: float, radius: float, kind: str) -> None:
        self.parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')

    def text(self, x: float, y: float, words: str, kind: str, anchor: str = "start") -> None:
        self.parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_escaped(words)}</text>'
        )

    def svg(self, description: str) -> str:
        """The whole element; `description` is read out in its place."""
        head = f'<svg role="img" viewBox="0 0 {self.width:.0f} {self.height:.0f}" style="max-width:{self.width:.0f}px"'
        return f'{head} aria-label="{_escaped(description)}">{"".join(self.parts)}</svg>'


WIDE, NARROW = 720, 340
"""Widths of the two drawings of a figure, in pixels."""


def both(draw: Callable[[float], str]) -> str:
    """A figure for either width; the style sheet shows one of them."""
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the `wanted` ones, at least `gap` apart where there is room, between `low` and `high`."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = [0.0] * len(wanted)
    edge = low
    for i in order:
        places[i] = max(wanted[i], edge)
        edge = places[i] + gap
    edge = high
    for i in reversed(order):
        places[i] = min(places[i], edge)
        edge = places[i] - gap
    return places


def _escaped(text: str) -> str:
    return escape(visible(text).replace("\n", " "), quote=True)
