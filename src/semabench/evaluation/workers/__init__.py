"""Worker processes: a model or a training in each, told by one parent what to do."""
