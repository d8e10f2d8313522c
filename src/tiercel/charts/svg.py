"""The few pieces that a chart is drawn from: elements, text, axes. Pure functions from numbers to strings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


def element(name: str, *children: str, **attributes: object) -> str:
    """Return one element; `class_` and `stroke_width` become `class` and `stroke-width`. Children are markup."""
    words = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(_number(value))}"' for key, value in attributes.items()
    )
    return f"<{name}{words}>{''.join(children)}</{name}>"


def text(x: float, y: float, content: str, *, anchor: str = "start", style: str = "label") -> str:
    """Return one line of text, escaped. style: a class of the page's style sheet."""
    return element("text", escape(content), x=x, y=y, text_anchor=anchor, class_=style)


def tooltip(content: str) -> str:
    """Return what a browser shows when the pointer rests on the element that holds it."""
    return element("title", escape(content))


def drawing(width: int, height: int, *children: str, title: str) -> str:
    """Return a whole picture that scales with the page. title: said to those who cannot see it."""
    return element(
        "svg",
        element("title", escape(title)),
        *children,
        viewBox=f"0 0 {width} {height}",
        role="img",
        xmlns="http://www.w3.org/2000/svg",
    )


def path(points: Sequence[tuple[float, float]], *, style: str, closed: bool = False) -> str:
    """Return a line through points."""
    commands = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points) + ("Z" if closed else "")
    return element("path", d=commands, class_=style)


@dataclass(frozen=True)
class Scale:
    """Maps values to positions along one axis, linearly or by logarithm."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Position of a value; values outside stick to the ends."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low or 1.0) * (self.stop - self.start)

    def ticks(self, count: int = 6) -> list[float]:
        """Round values for ticks: decades and their thirds on a logarithmic axis, 1-2-5 steps on a linear one."""
        if self.logarithmic:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [base * 10.0**exponent for exponent in exponents for base in (1, 3)]
            return [value for value in values if self.low <= value <= self.high]
        rough = (self.high - self.low) / count or 1.0
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(base * magnitude for base in (1, 2, 5, 10) if base * magnitude >= rough)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _number(value: object) -> str:
    """Numbers without needless digits; anything else as it is."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
