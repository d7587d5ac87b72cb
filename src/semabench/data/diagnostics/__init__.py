"""Procedural tasks, drawn on the fly, that each isolate one ability of a token mixer."""

from semabench.data.diagnostics.draw import CELL, draw
from semabench.data.diagnostics.tasks import TASKS, Task, task_named

__all__ = ["CELL", "TASKS", "Task", "draw", "task_named"]
