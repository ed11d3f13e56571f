"""Charts as SVG: text that stays text, colours that follow the reader's theme, nothing to install."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 76, 40, 64, 52
# Okabe and Ito's colours, which the colour-blind can tell apart too; all are legible on both backgrounds
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a", "#b8a800")
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #3d444d }
    .title { font-size: 16px; font-weight: 600; fill: #1f2328 }
    .card { fill: #ffffff; stroke: #d1d9e0 }
    .grid { stroke: #d1d9e0; stroke-width: 1 }
    @media (prefers-color-scheme: dark) {
        text { fill: #b7bdc8 } .title { fill: #f0f6fc } .card { fill: #0d1117; stroke: #3d444d }
        .grid { stroke: #3d444d }
    }
"""


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float  # the pixel of `low`
    end: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, log: bool = False) -> "Axis":
        """Wide enough for all of `values`: to whole ticks; from 0 unless logarithmic."""
        if log:
            powers = [math.log10(value) for value in values]
            low, high = math.floor(min(powers) + 1e-9), math.ceil(max(powers) - 1e-9)
            return cls(10.0**low, 10.0 ** max(high, low + 1), start, end, log)
        step = _step(max(values))
        return cls(0.0, step * math.ceil(max(values) / step - 1e-9), start, end)

    def ticks(self) -> list[float]:
        """Where the lines are."""
        if self.log:
            low, high = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**power for power in range(low, high + 1)]
        step = _step(self.high)
        return [step * number for number in range(round(self.high / step) + 1)]

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def lines(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Points],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """A line for each of `series`."""
    points = [point for its in series.values() for point in its]
    x = Axis.over([at for at, _ in points], LEFT, WIDTH - RIGHT, log_x)
    y = Axis.over([value for _, value in points], HEIGHT - BOTTOM, TOP, log_y)
    parts = [*_x_axis(x, x_label, HEIGHT), *_y_axis(y, y_label)]
    for its, colour in zip(series.values(), COLOURS, strict=False):
        way = " ".join(f"{x(at)},{y(value)}" for at, value in its)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        if len(its) <= 12:  # samples are a line, measurements are points
            parts += [f'<circle cx="{x(at)}" cy="{y(v)}" r="4" fill="{colour}"/>' for at, v in its]
    return _document(title, HEIGHT, parts, list(series))


def bars(title: str, x_label: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """A bar for each of `rows`, made up of its parts."""
    names = list(dict.fromkeys(part for row in rows.values() for part in row))
    totals = {name: sum(row.values()) for name, row in rows.items()}
    height = TOP + 52 * len(rows) + BOTTOM
    x = Axis.over(list(totals.values()), LEFT + 20, WIDTH - RIGHT - 20)
    parts = _x_axis(x, x_label, height)
    for number, (name, row) in enumerate(rows.items()):
        top, so_far = TOP + 52 * number + 8, 0.0
        parts.append(_text(LEFT + 10, top + 23, name, "end"))
        for part, value in sorted(row.items(), key=lambda item: names.index(item[0])):
            start, end = x(so_far), x(so_far + value)
            colour = COLOURS[names.index(part) % len(COLOURS)]
            parts.append(
                f'<rect x="{start}" y="{top}" width="{end - start:.1f}" height="36" fill="{colour}">'
                f"<title>{escape(part)}: {value:.3g}</title></rect>"
            )
            so_far += value
        parts.append(_text(x(so_far) + 8, top + 23, f"{so_far:.3g}"))
    return _document(title, height, parts, names)


def _x_axis(x: Axis, label: str, height: int) -> list[str]:
    bottom = height - BOTTOM
    parts = []
    for tick in x.ticks():
        parts.append(f'<path class="grid" d="M{x(tick)} {TOP}V{bottom}"/>')
        parts.append(_text(x(tick), bottom + 18, short(tick), "middle"))
    return [*parts, _text((x.start + x.end) / 2, height - 12, label, "middle")]


def _y_axis(y: Axis, label: str) -> list[str]:
    parts = []
    for tick in y.ticks():
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, y(tick) + 4, short(tick), "end"))
    middle = (y.start + y.end) / 2
    return [*parts, f'<g transform="translate(20 {middle}) rotate(-90)">{_text(0, 0, label, "middle")}</g>']


def _document(title: str, height: int, parts: Sequence[str], names: Sequence[str]) -> str:
    legend, at = [], float(LEFT)
    for name, colour in zip(names, COLOURS, strict=False):
        legend.append(f'<rect x="{at:.0f}" y="41" width="12" height="12" rx="2" fill="{colour}"/>')
        legend.append(_text(at + 17, 52, name))
        at += 36 + 7.2 * len(name)
    content = "\n".join([*parts, *(legend if len(names) > 1 else [])])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-label="{escape(title)}">\n<style>{STYLE}</style>\n'
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        f'<text class="title" x="20" y="28">{escape(title)}</text>\n{content}\n</svg>\n'
    )


def short(value: float) -> str:
    """A number as axes have it: 10k, 2M, 0.05."""
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:.3g}"


def _step(most: float) -> float:
    """A round distance that cuts `most` into three to six."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * part for part in (0.2, 0.5, 1.0, 2.0) if most / (power * part) <= 6)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
