"""Numbers for people: three significant digits, a suffix, and "–" where nothing is known."""

from __future__ import annotations

import math

UNKNOWN = "–"
_SI = ("", "k", "M", "G", "T", "P", "E")
_BYTES = ("B", "kB", "MB", "GB", "TB")


def si(value: float | None) -> str:
    """Three significant digits with a decimal suffix: 41500000 is ``41.5M``; below 1000 as it is.

    Whole numbers below 1000 have no decimals; None, NaN and infinities are ``–``.
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    scaled, step = _scale(abs(value), len(_SI))
    if step == 0 and float(value).is_integer():
        return _signed(value, f"{scaled:.0f}")
    return _signed(value, significant(scaled) + _SI[step])


def size(value: float | None) -> str:
    """Bytes with a decimal unit: 1093412 is ``1.09 MB``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    scaled, step = _scale(abs(value), len(_BYTES))
    text = f"{scaled:.0f}" if step == 0 else significant(scaled)
    return _signed(value, f"{text} {_BYTES[step]}")


def percent(value: float | None, digits: int = 1) -> str:
    """A share: 0.7994 is ``79.9 %``. Only an exact 1 is 100 %, and only an exact 0 is 0 %."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{100 * value:.{digits}f}"
    least = 10.0**-digits
    if text == f"{100:.{digits}f}" and value < 1:
        text = f"{100 - least:.{digits}f}"
    elif float(text) == 0 and value != 0:
        return f"< {least:.{digits}f} %" if value > 0 else f"> −{least:.{digits}f} %"
    return f"{text} %".replace("-", "−")


def points(value: float | None, error: float | None = None) -> str:
    """A difference of shares in percentage points: ``−0.5 ± 0.3 pp``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{100 * value:+.1f}"
    text = "±0.0" if float(text) == 0 else text.replace("-", "−")
    if text == "±0.0" and error:
        text = "0.0"
    return f"{text}{_error(error)} pp"


def share(value: float | None, error: float | None = None) -> str:
    """A measured share with its standard error: ``79.9 ± 0.9 %``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if not error:
        return percent(value)
    return f"{100 * value:.1f}{_error(error)} %"


def times(value: float | None) -> str:
    """A ratio: 0.153 is ``0.153×``, 12.31 is ``12.3×``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if 0 < abs(value) < 0.001:
        return "< 0.001×"
    return _signed(value, f"{_ratio_digits(abs(value))}×")


def ratio(after: float | None, before: float | None) -> float | None:
    """``after / before``, or None where it has no meaning."""
    if after is None or before is None or not before:
        return None
    return after / before


def decibel(value: float | None) -> str:
    """A signal-to-noise ratio: ``21.4 dB``; ``exact`` where there is no noise."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "exact" if value > 0 else "−∞ dB"
    return f"{value:.1f} dB".replace("-", "−")


def milliseconds(value: float | None) -> str:
    """A wall time: ``0.412 ms``, ``12.3 ms``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{significant(value)} ms"


def cosine(value: float | None) -> str:
    """Four decimals, and 1 only where it is 1 to nine digits: 0.99996 is ``0.99996``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value >= 1 - 5e-10:
        return "1.0000"
    digits = 4
    while f"{value:.{digits}f}".startswith("1") and digits < 9:
        digits += 1
    return f"{value:.{digits}f}".replace("-", "−")


def bits(value: float | None) -> str:
    """Bits of a layer, or their mean: ``4``, ``3.71``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.0f}" if float(value).is_integer() else significant(value)


def significant(value: float) -> str:
    """Three significant digits without an exponent: 1234 is ``1230``, 0.5 is ``0.500``."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    # Rounding may carry into a new digit: 9.996 is 10.0.
    digits = 2 - math.floor(math.log10(abs(rounded))) if rounded else digits
    return f"{rounded:.{max(digits, 0)}f}"


def _scale(value: float, count: int) -> tuple[float, int]:
    """Divide by 1000 until three digits are left, by what will be shown: 999999 is 1.00M."""
    step = 0
    while step < count - 1 and round(value, 0 if value >= 100 or step == 0 else 1) >= 1000:
        value /= 1000
        step += 1
    return value, step


def _ratio_digits(value: float) -> str:
    return f"{value:.3f}" if value < 1 else significant(value)


def _signed(value: float, magnitude: str) -> str:
    return f"−{magnitude}" if value < 0 else magnitude


def _error(error: float | None) -> str:
    return f" ± {100 * error:.1f}" if error else ""
