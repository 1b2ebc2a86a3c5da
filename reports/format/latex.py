"""Text as LaTeX in ASCII, so that it compiles with any input encoding and any of the usual font encodings.

Left out: scripts and signs beyond Latin, Greek and those that reports use. They become their code point, "U+6570".
"""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${sign}$" for sign in "<>|"},
    # after the end of a row they would be read as its options
    **{sign: f"{{{sign}}}" for sign in "[]*"},
    '"': "''",  # babel makes commands of it
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
    """One line of text that LaTeX sets as it stands here, in ASCII."""
    line = unicodedata.normalize("NFC", " ".join(text.split()))
    return re.sub(r"-(?=-)", "-{}", "".join(map(_sign, line)))  # two hyphens would become a dash


def _sign(sign: str) -> str:
    if sign in _SIGNS:
        return _SIGNS[sign]
    if " " <= sign <= "~":
        return sign
    for table, form in ((_GREEK, r"$\%s$"), (_RAISED, "$^{%s}$"), (_LOWERED, "$_{%s}$")):
        if sign in table:
            return form % table[sign]
    return _composed(sign)


def _composed(sign: str) -> str:
    """A letter with its accent, or a sign that stands for others; else its code point."""
    parts = unicodedata.normalize("NFKD", sign)
    if len(parts) == 2 and parts[0].isalpha() and parts[0].isascii() and parts[1] in _ACCENTS:
        base = r"\i" if parts[0] == "i" else parts[0]
        return f"\\{_ACCENTS[parts[1]]}{{{base}}}"
    return "".join(map(_sign, parts)) if parts != sign else f"U+{ord(sign):04X}"
