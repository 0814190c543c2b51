"""HTML and SVG whose texts are escaped by construction: a string is text, and only `element` makes markup."""

from __future__ import annotations

from html import escape

_EMPTY = frozenset({"meta", "line", "rect", "path", "circle"})
"""Elements without content: HTML's void one, and SVG's, which close themselves."""


class Markup(str):
    """Markup that `element` made."""

    __slots__ = ()


Child = str | Markup | None


def element(tag: str, *children: Child, **attributes: object) -> Markup:
    """`class_` is the attribute class, `stroke_width` is stroke-width; None leaves an attribute out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value), quote=True)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _EMPTY:
        return Markup(f"<{tag}{written}>" if tag == "meta" else f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{joined(*children)}</{tag}>")


def joined(*children: Child) -> Markup:
    parts = (child if isinstance(child, Markup) else escape(child) for child in children if child is not None)
    return Markup("".join(parts))


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def table(caption: str, columns: list[str], rows: list[list[Child]]) -> Markup:
    """With a heading for each row: its first cell."""
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    inside = joined(element("caption", caption), element("thead", head), element("tbody", *body))
    # Wide tables scroll by themselves, by keyboard too; the page never does.
    return element("div", element("table", inside), class_="wide", tabindex="0", role="region", aria_label=caption)


def figure(title: str, description: str, width: float, height: float, *children: Child) -> Markup:
    """An SVG picture with the texts that screen readers speak."""
    inside = joined(element("title", title), element("desc", description), *children)
    picture = element("svg", inside, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title)
    return element("figure", picture, element("figcaption", title))
