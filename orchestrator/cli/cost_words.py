"""Numbers as a finance person reads them: dollars, tokens, shares. Exact values are in --json and --csv."""


def dollars(usd: float) -> str:
    """`$12,345`, `$4.375`, `-$20`."""
    amount = abs(usd)
    text = f"${amount:,.0f}" if amount >= 1000 else f"${amount:,.2f}" if amount >= 10 else f"${amount:,.3f}"
    return f"-{text}" if usd < 0 else text


def saving(usd: float) -> str:
    """With its sign: `+$12,345`, `-$678`."""
    return f"{'-' if usd < 0 else '+'}${abs(usd):,.0f}"


def tokens(count: float) -> str:
    """Three digits: `2.33 B`, `816 M`, `4,096`."""
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * factor:
            amount = count / factor
            return f"{amount:.0f} {unit}" if amount >= 99.95 or amount == round(amount) else f"{amount:.3g} {unit}"
    return f"{count:,.0f}"


def bound(count: float | None) -> str:
    """A break-even, which may not be there."""
    return "never" if count is None else tokens(count)


def number(value: float) -> str:
    """At least four digits, or to the tenth."""
    if abs(value) >= 1e6:
        return tokens(value) if value > 0 else f"{value:,.0f}"
    if abs(value) >= 1000:
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.4g}"


def share(value: float) -> str:
    """`75%`, `2.8%`."""
    percent = 100 * value
    return f"{percent:.0f}%" if percent >= 10 or percent == round(percent) else f"{percent:.1f}%"
