"""Charts as plain SVG, drawn by the server: pure functions from numbers to markup.

Everything horizontal is in per cent and everything vertical in pixels, so a chart fills any width while its
text keeps its size. Colours are classes of the style sheet: the security policy allows no inline style.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from markupsafe import Markup

TOP, BOTTOM = 14, 26  # pixels: for the highest line's number, and for the columns' names
AXIS_WIDTH = 40
MOST_STEPS = 4
LEAST_BAR = 2.0  # one view among thousands is still to be seen
STEPS = (1, 2, 5)
# of a column's width: the first series stands behind, the later ones in front of it
BAR_SHARES = ((72, "series-0"), (36, "series-1"))
FEW, FEW_SHARE = 12, 0.7  # columns that are so few have bars that narrow, or these would be slabs

HATCH = Markup(
    '<defs><pattern id="{name}-hatch" width="6" height="6" patternUnits="userSpaceOnUse"'
    ' patternTransform="rotate(45)"><rect class="hatch-ground" width="6" height="6"/>'
    '<line class="hatch-line" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>'
)
LINE = Markup('<line class="{kind}" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
TICK = Markup('<text class="tick" x="{x}" y="{y}" text-anchor="end">{text}</text>')
NAME = Markup('<text class="tick{kind}" x="50%" y="{y}" text-anchor="middle">{text}</text>')
BAR = Markup('<rect class="bar {kind}" x="{x}%" y="{y}" width="{width}%" height="{height}" rx="1.5"/>')
COLUMN = Markup('<svg class="column" x="{x}%" width="{width}%" height="{height}">{body}</svg>')
TITLE = Markup("<title>{}</title>")
BACKGROUND = Markup('<rect class="hit" width="100%" y="{y}" height="{height}"/>')
GAP = Markup('<rect class="gap" width="100%" y="{y}" height="{height}" fill="url(#{name}-hatch)"/>')
GAP_LABEL = Markup(
    '<svg class="gap-label" x="50%" y="{y}"><text transform="rotate(-90)" x="-6" y="4" text-anchor="end">'
    "gap</text></svg>"
)
AXIS = Markup('<svg class="axis" width="{width}" height="{height}" aria-hidden="true">')
PLOT = Markup('<svg class="plot" width="100%" height="{height}" role="img" aria-label="{label}">')
SHARE = Markup(
    '<svg class="share" width="100%" height="100%" aria-hidden="true">'
    '<rect width="{percent}%" height="100%" rx="3"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Column:
    """What is drawn above one place of the horizontal axis."""

    name: str  # in full, for the tooltip
    tick: str  # below the axis, where there is room
    values: tuple[int, ...]  # at most one for each of BAR_SHARES; none is larger than the first
    gap: bool = False  # nobody counted for a while: what is drawn is too low
    is_open: bool = False  # still being counted


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where the columns of a chart are drawn."""

    name: str  # unique on the page
    top: int  # the value at the upper edge
    height: float  # pixels
    above: int = TOP  # pixels over the upper edge
    bars: float = 1.0  # how wide they are, of their share

    def y(self, value: float) -> float:
        """The pixel of a value."""
        return _round(self.above + self.height * (1 - value / self.top))


def columns(
    name: str, drawn: Sequence[Column], series: Sequence[str], label: str, *, height: int, ticks: int
) -> Markup:
    """A column chart with its vertical axis.

    `name` is unique on the page, `series` names the values, `label` says to those who do not see it what the
    chart shows, `ticks` is how many columns are named at most on a wide screen; half of them on a narrow one.
    """
    lines = scale(max((max(column.values) for column in drawn), default=0))
    bars = FEW_SHARE if len(drawn) <= FEW else 1.0
    plot = _Plot(name, lines[-1], height - TOP - BOTTOM, bars=bars)
    numbers = [TICK.format(x=AXIS_WIDTH - 8, y=plot.y(line) + 4, text=compact(line)) for line in lines]
    rules = [LINE.format(kind="grid-line" if line else "base-line", y=plot.y(line)) for line in lines]
    bodies = [_column(plot, column, series) for column in drawn]
    for index, kind in _named(len(drawn), ticks).items():
        bodies[index] += NAME.format(kind=kind, y=TOP + plot.height + 18, text=drawn[index].tick)
    for index, column in enumerate(drawn):
        if column.gap and not (index and drawn[index - 1].gap):
            bodies[index] += GAP_LABEL.format(y=TOP)
    return Markup('<div class="chart">{}{}</svg>{}{}{}{}</svg></div>').format(
        AXIS.format(width=AXIS_WIDTH, height=height),
        _joined(numbers),
        PLOT.format(height=height, label=label),
        HATCH.format(name=name),
        _joined(rules),
        _side_by_side(bodies, height),
    )


def strip(values: Sequence[tuple[str, int]], label: str, *, height: int) -> Markup:
    """Bars without axes, as tall as they can be: [(name, value)], oldest first."""
    plot = _Plot("strip", max([value for _, value in values] + [1]), height, above=0)
    bodies = [_column(plot, Column(f"{name}: {value:,}", "", (value,)), ()) for name, value in values]
    return Markup('<div class="chart strip">{}{}{}</svg></div>').format(
        PLOT.format(height=height, label=label),
        LINE.format(kind="base-line", y=height - 0.5),
        _side_by_side(bodies, height),
    )


def share(value: int, largest: int) -> Markup:
    """A bar behind a table's row, as long as `value` is to `largest`."""
    return SHARE.format(percent=_round(100 * value / largest) if largest else 0)


def scale(largest: int) -> list[int]:
    """The values that get a line: 0 and two to four round steps, of which the last is at least `largest`."""
    power = 1
    while True:
        for factor in STEPS:
            step = factor * power
            if step * MOST_STEPS >= largest:
                return [step * n for n in range(max(ceil(largest / step), 2) + 1)]
        power *= 10


def compact(value: int) -> str:
    """A number for an axis: 950, 1.5k, 20k, 3M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value < 1000 * size else f"{value / size:.0f}{unit}"
    return str(value)


def _column(plot: _Plot, column: Column, series: Sequence[str]) -> Markup:
    """Everything of a column but its place."""
    lines = [f"{name}: {value:,}" for name, value in zip(series, column.values, strict=False)]
    notes = ["not counted for a while"] * column.gap + ["so far"] * column.is_open
    body = TITLE.format("\n".join([column.name, *lines, *notes]))
    body += BACKGROUND.format(y=plot.above, height=plot.height)
    if column.gap:
        body += GAP.format(y=plot.above, height=plot.height, name=plot.name)
    for (width, kind), value in zip(BAR_SHARES, column.values, strict=False):
        body += _bar(plot, value, width, f"{kind} open" if column.is_open else kind)
    return body


def _bar(plot: _Plot, value: int, share_of_column: int, kind: str) -> Markup:
    width = share_of_column * plot.bars
    tall = max(plot.height * value / plot.top, LEAST_BAR) if value else 0
    return BAR.format(
        kind=kind,
        x=_round((100 - width) / 2),
        width=_round(width),
        y=_round(plot.above + plot.height - tall),
        height=_round(tall),
    )


def _side_by_side(bodies: Sequence[Markup], height: int) -> Markup:
    width = 100 / len(bodies) if bodies else 0
    return _joined(
        COLUMN.format(x=_round(index * width), width=_round(width), height=height, body=body)
        for index, body in enumerate(bodies)
    )


def _joined(pieces: Iterable[Markup]) -> Markup:
    return Markup("").join(pieces)


def _named(count: int, most: int) -> dict[int, str]:
    """Which columns are named, counted from the last one, and the class of those that need a wide screen."""
    every = max(ceil(count / most), 1)
    places = range(count - 1, -1, -every)
    return {index: "" if place % 2 == 0 else " fine" for place, index in enumerate(places)}


def _round(value: float) -> float:
    return round(value, 2)
