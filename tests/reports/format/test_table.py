from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.format.latex import escape_latex
from reports.format.table import Table, make_file_stem, make_file_stems, to_csv, to_markdown, to_tex, to_text

ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126))
BACK = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", "{''}": '"', "-{}-": "--"}
BACK |= {f"\\{sign}": sign for sign in "&%$#_{}"} | {f"${sign}$": sign for sign in "<>|"}
BACK |= {f"{{{sign}}}": sign for sign in "[]*"}
TOKEN = re.compile("|".join(re.escape(token) for token in sorted(BACK, key=len, reverse=True)) + "|[^\\\\{}$&#^_~%<>|]")


def table(*rows: tuple[str, ...], kinds: tuple[str, ...] = (), notes: tuple[str, ...] = ()) -> Table:
    return Table("a-table", "A caption", ("name", "value"), "lr", rows, kinds, notes)


def balanced(tex: str) -> bool:
    """Whether braces and dollars pair up, those that are signs left out."""
    bare = re.sub(r"\\[\\{}$%&#_]", "", tex)
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0 and bare.count("$") % 2 == 0


@given(st.text())
def test_latex_is_ascii_on_one_line_and_balanced(text: str) -> None:
    tex = escape_latex(text)
    assert tex.isascii()
    assert tex.isprintable()
    assert balanced(tex)


@given(st.text())
def test_latex_has_no_special_sign_left(text: str) -> None:
    rest = re.sub(r"(?<!\\)\$(\\?\w+|[-<>|]|\\\w+|\^\{[^{}]*\}|_\{[^{}]*\})\$", "", escape_latex(text))
    rest = re.sub(r"\\[&%$#_{}]", "", rest)
    rest = re.sub(r"\\([A-Za-z]+|[`'^~=.\"])(?=\{)", "", rest)
    rest = rest.replace("{\\i}", "{i}")
    assert not set(rest) & set('\\$&%#_~^<>|"')
    assert all(rest[at - 1 : at + 2] in ("{[}", "{]}", "{*}") for at, sign in enumerate(rest) if sign in "[]*")


@given(ASCII.map(lambda text: " ".join(text.split())).filter(lambda text: "''" not in text and "---" not in text))
def test_latex_says_what_the_text_says(text: str) -> None:
    tokens = TOKEN.findall(escape_latex(text))
    assert "".join(tokens) == escape_latex(text)
    assert "".join(BACK.get(token, token) for token in tokens) == text


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("93.77 ± 0.78", r"93.77 $\pm$ 0.78"),
        ("−0.02 – p ≤ 0.05", r"$-$0.02 \textendash{} p $\leq$ 0.05"),
        ("α 8×8 m² zₙ", r"$\alpha$ 8$\times$8 m$^{2}$ z$_{n}$"),
        ("DKD & LP_50% #1 {a} $x$", r"DKD \& LP\_50\% \#1 \{a\} \$x\$"),
        (r"C:\tmp ~ ^", r"C:\textbackslash{}tmp \textasciitilde{} \textasciicircum{}"),
        ("é ï ç ü ß ł", r"\'{e} \"{\i} \c{c} \"{u} \ss{} \l{}"),
        ("--seeds 8", "-{}-seeds 8"),
        ("[a] *", "{[}a{]} {*}"),
        ("数 🙂", "U+6570 U+1F642"),
    ],
)
def test_latex_of_what_reports_write(text: str, tex: str) -> None:
    assert escape_latex(text) == tex


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4), st.lists(st.text(), max_size=2))
def test_a_latex_table_keeps_its_shape_whatever_its_cells_say(rows: list[tuple[str, str]], notes: list[str]) -> None:
    tex = to_tex(table(*rows, kinds=("greyed",) * len(rows), notes=tuple(notes)))
    body = tex.split("\\midrule\n")[1].split("\n\\bottomrule")[0].splitlines()
    assert len(body) == len(rows)
    for line in body:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == 1
    assert balanced(tex)
    assert not re.search(r"\\\\\s*[\[*]", tex)


def test_a_latex_table_names_the_packages_it_needs() -> None:
    plain, greyed = to_tex(table(("a", "1"))), to_tex(table(("a", "1"), ("b", "2"), kinds=("", "greyed")))
    assert plain.splitlines()[0] == r"% needs \usepackage{adjustbox,booktabs}"
    assert "color" not in plain
    assert greyed.splitlines()[0] == r"% needs \usepackage{adjustbox,booktabs} and \usepackage{xcolor}"
    assert greyed.count(r"\color") == 2
    for command in (r"\caption{A caption}", r"\label{tab:a-table}", r"\begin{tabular}{lr}"):
        assert command in plain
    assert plain.count(r"\begin") == plain.count(r"\end")


def test_a_latex_table_has_its_notes_below_in_small_print() -> None:
    tex = to_tex(table(("a", "1"), notes=("p ≤ 0.05.",)))
    assert tex.index(r"\end{tabular}") < tex.index(r"\footnotesize") < tex.index(r"p $\leq$ 0.05.\par")
    assert tex.count(r"\begin") == tex.count(r"\end") == 4


def test_parts_of_a_number_stand_on_lines_of_their_own_in_latex_only() -> None:
    one = table(("a; b", "1 ± 2 (n = 3); published 4"))
    stacked = r"\begin{tabular}[t]{@{}r@{}}1 $\pm$ 2 (n = 3)\\published 4\end{tabular}"
    assert rf"a; b & {stacked} \\" in to_tex(one)
    assert "1 ± 2 (n = 3); published 4" in to_csv(one)
    assert "1 ± 2 (n = 3); published 4 |" in to_markdown(one)


@given(st.text())
def test_markdown_lets_no_tag_and_no_entity_through(text: str) -> None:
    line = to_markdown(table((text, "> 1000"))).splitlines()[4]
    assert "<" not in line
    assert re.sub(r"&(amp|lt);", "", line).count("&") == 0
    assert line.endswith("| > 1000 |")
    assert line.count(">") == text.count(">") + 1


def test_names_that_differ_have_files_of_their_own() -> None:
    names = ["DKD+LP", "DKD + LP", "KD, T=4", "KD T 4", "α", "β", "가", "a_b", "a-b", "x" * 90, "x" * 91]
    assert len({make_file_stem(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "names",
    [
        ["a b", "a-b", "a, b", "a/b", "a / b"],
        ["KD", "kd", "Kd"],
        ["x" * 90 + "a", "X" * 90 + "a"],
        ["a.", "a", " a", "-a-"],
        ["", ".", "..", "-"],
        ["é", "e\u0301"],
        ["s / KD T=4", "s / KD-T=4", "s / KD [t=4]", "s / KD (t=4)"],
    ],
)
def test_names_of_one_list_have_files_of_their_own_on_any_disk(names: list[str]) -> None:
    stems = make_file_stems(names)
    assert len({stem.casefold() for stem in stems.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_+=-][A-Za-z0-9._+=-]{0,99}", stem) for stem in stems.values())
    assert make_file_stems(["a b", "c-d"]) == {"a b": "a-b", "c-d": "c-d"}


def test_table_forms_keep_hostile_cells_in_their_place() -> None:
    table = Table("t", "a|b", ("name", "value"), "lr", (("x|y\n<b>", "1"), ('say "hi", you', "2")))
    markdown = to_markdown(table).splitlines()
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in markdown if line.startswith("|"))
    assert "<b>" not in to_markdown(table)
    assert to_csv(table) == 'name,value\n"x|y\n<b>",1\n"say ""hi"", you",2\n'
    assert len(to_text(table).splitlines()) == 4


def test_csv_has_means_and_the_widths_of_their_intervals_in_columns_of_their_own() -> None:
    rows = (("a", "−1.5 ± 0.25", "8.4 ± 0.6 (n = 9)"), ("b", "2", "–"), ("c", "–", "1"))
    assert to_csv(Table("t", "t", ("arm", "MAE", "RMSE"), "lrr", rows)).splitlines() == [
        "arm,MAE,MAE ±,RMSE",
        "a,-1.5,0.25,8.4 ± 0.6 (n = 9)",
        "b,2,,",
        "c,,,1",
    ]


def test_csv_has_numbers_that_programs_read_and_text_as_it_is() -> None:
    rows = (("−a 1,234", "−1,234,567.5"), ("–", "–"), ("b", "−0.22 [−0.65, +0.04]"), ("c", "12,34"))
    assert to_csv(Table("t", "t", ("name", "value"), "lr", rows)).splitlines()[1:] == [
        '"−a 1,234",-1234567.5',
        "–,",
        'b,"-0.22 [-0.65, +0.04]"',
        'c,"12,34"',
    ]


def test_file_stem_is_safe_and_distinguishes_long_names() -> None:
    assert make_file_stem("search-resnet8 / DKD + LP, searched") == "search-resnet8-DKD-+-LP-searched"
    assert make_file_stem("../../etc/passwd") == "etc-passwd"
    long = {make_file_stem("x" * 300 + end) for end in "ab"}
    assert len(long) == 2
    assert max(map(len, long)) < 100
