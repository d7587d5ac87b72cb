"""Results: one record a measurement, an append-only store, and the views of it."""

from semabench.results.record import Record, accuracy
from semabench.results.store import RESULTS_NAME, append_record, read_results, read_rows

__all__ = ["RESULTS_NAME", "Record", "accuracy", "append_record", "read_results", "read_rows"]
