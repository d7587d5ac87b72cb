"""One self-contained HTML page of all rows: a new family of rows is an entry in `families`."""
