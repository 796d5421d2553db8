"""Arithmetic on published numbers, which may be ranges or bounds; nothing is guessed.

A span is `(low, high)`; None is a bound that nobody gave. All values are 0 or more.
"""

Span = tuple[float | None, float | None]


def divide(over: Span, under: Span) -> Span:
    """The least and the most that a quotient may be; a bound over zero is unknown."""
    low = over[0] / under[1] if over[0] is not None and under[1] else None
    high = over[1] / under[0] if over[1] is not None and under[0] else None
    return low, high


def multiply(one: Span, other: Span) -> Span:
    """The least and the most that a product may be."""
    low = one[0] * other[0] if one[0] is not None and other[0] is not None else None
    high = one[1] * other[1] if one[1] is not None and other[1] is not None else None
    return low, high


def span_text(span: Span, *, digits: int = 2, sign: str = "") -> str:
    """A span as it is read: `28.53`, `2-10`, `<15.38`, `>1,468.43`, or a dash.

    `digits` stand after the point, where a bound is no whole number.
    """
    is_whole = all(bound is None or bound == round(bound) for bound in span)
    places = 0 if is_whole else digits
    low, high = (None if bound is None else f"{bound:,.{places}f}" for bound in span)
    if low is None and high is None:
        return "-"
    if low is None:
        return f"<{sign}{high}"
    if high is None:
        return f">{sign}{low}"
    return f"{sign}{low}" if low == high else f"{sign}{low}-{high}"
