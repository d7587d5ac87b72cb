"""Accuracy, cost, dispersion, study: `python eval.py checkpoint=RUN resolutions=[224]`."""

from semabench.commands import evaluate

if __name__ == "__main__":
    evaluate()
