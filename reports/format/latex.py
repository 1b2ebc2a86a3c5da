"""Text as LaTeX in ASCII, which compiles with any input encoding and any of the usual font encodings.

Supported are Latin and Greek letters and the symbols of reports; any other character becomes its code point: "U+6570".
"""

from __future__ import annotations

import re
import unicodedata

_SYMBOLS = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${sign}$" for sign in "<>|"},
    # after the end of a row, LaTeX reads these as options of the row
    **{sign: f"{{{sign}}}" for sign in "[]*"},
    '"': "{''}",  # itself a command in several languages of babel; in braces, next to an apostrophe
    "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\dots{}", "‘": "`", "’": "'", "“": "``", "”": "''",
    "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$",
    "≈": r"$\approx$", "→": r"$\to$", "∞": r"$\infty$", "°": r"$^{\circ}$", "§": r"\S{}", "µ": r"$\mu$",
    "ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ł": r"\l{}",
    "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma sigma tau upsilon phi "
    "chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
_GREEK = dict(zip("αβγδεζηθικλμνξπρςστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", _GREEK_NAMES.split(), strict=True))
_ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327", "`'^~=u.\"rHvc", strict=True)
)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₋ₙ", "0123456789-n", strict=True))


def escape_latex(text: str) -> str:
    """Return `text` as one line of ASCII that LaTeX prints unchanged."""
    line = unicodedata.normalize("NFC", " ".join(text.split()))
    return re.sub(r"-(?=-)", "-{}", "".join(map(_escape_character, line)))  # two hyphens would become a dash


def _escape_character(character: str) -> str:
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if " " <= character <= "~":
        return character
    for table, form in ((_GREEK, r"$\%s$"), (_RAISED, "$^{%s}$"), (_LOWERED, "$_{%s}$")):
        if character in table:
            return form % table[character]
    return _escape_composed(character)


def _escape_composed(character: str) -> str:
    """Return an accented letter, the decomposition of a compatibility character, or the code point."""
    parts = unicodedata.normalize("NFKD", character)
    if len(parts) == 2 and parts[0].isalpha() and parts[0].isascii() and parts[1] in _ACCENTS:
        base = r"\i" if parts[0] == "i" else parts[0]
        return f"\\{_ACCENTS[parts[1]]}{{{base}}}"
    return "".join(map(_escape_character, parts)) if parts != character else f"U+{ord(character):04X}"
