"""The tables of a study: a table is one module with `make_tables(records) -> list[Table]` and one line in a list.

`TABLES` in reports/build.py lists the modules whose tables are written to the study's tables/. Besides them,
terminal.py prints the comparison at the end of a run; cross_study.py and study_differences.py compare studies.
"""
