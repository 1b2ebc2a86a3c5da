"""From a study's rows to tables, figures and one offline page. Imports neither ray nor torch."""
