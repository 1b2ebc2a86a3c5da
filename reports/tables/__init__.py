"""The tables of a study: a table is one module with `make_tables(records) -> list[Table]` and one line in a list.

`TABLES` in reports/contents.py lists what is written to the study's tables/ and shown on the page. In addition,
terminal.py prints the comparison at the end of a run; cross_study.py and study_differences.py compare studies.
"""
