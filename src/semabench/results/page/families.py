"""Every family of rows that the page shows, in its order. A new one is an entry here."""

from __future__ import annotations

from semabench.results.page.cost import tables_of_cost
from semabench.results.page.family import Family, Figure
from semabench.results.page.lines import of_cost, of_dispersion, over_seeds
from semabench.results.page.study import of_study

_POWER = (
    "Both axes are logarithmic, so a power law is a straight line: when the side doubles, a cost "
    "that is linear in the tokens grows fourfold, and a quadratic one sixteenfold."
)


FAMILIES: tuple[Family, ...] = (
    Family(
        measure="accuracy",
        title="Accuracy",
        about="Trained models, evaluated at several resolutions on the same pictures. Throughput "
        "and memory are those of the evaluation; speed measured by itself is under Cost.",
        lines=over_seeds(),
        figures=(
            Figure(
                "resolution",
                "top1",
                "Higher is better. A mixer that holds up as images grow keeps its line from "
                "falling to the right of the training size. A difference of less than two standard "
                "errors shows nothing.",
            ),
            Figure("resolution", "top5", plot=False),
            Figure("resolution", "images_per_second", f"Higher is better. {_POWER}"),
            Figure(
                "resolution",
                "peak_memory_mib",
                f"Lower is better. {_POWER} On a CPU this is the whole process, with libraries.",
            ),
            Figure(
                "images_per_second",
                "top1",
                "Up and to the right is better: more accurate and faster. Each line follows one "
                "model through its resolutions; a point to the upper right of another beats it.",
                table=False,
            ),
            Figure(
                "gmacs",
                "top1",
                "Up and to the left is better: more accurate for less arithmetic. Each line "
                "follows one model through its resolutions. Multiply-adds are counted, not timed.",
                table=False,
            ),
        ),
    ),
    Family(
        measure="cost",
        title="Cost",
        about="Random pictures, weights at random: medians over timed windows, the models in turn, "
        "each in a process of its own. Figures show the largest batch that all resolutions share, "
        "or the largest of each; tables show all.",
        lines=of_cost,
        figures=(
            Figure("resolution", "images_per_second", f"Higher is better. {_POWER}", table=False),
            Figure(
                "resolution",
                "latency_ms",
                "Lower is better. Time of one whole batch: compare models at equal batch sizes, "
                "which the points tell.",
                table=False,
            ),
            Figure(
                "resolution",
                "peak_memory_mib",
                "Lower is better, and only comparable at equal batch sizes. On a GPU the model's "
                "own allocations, on a CPU the whole process.",
                table=False,
            ),
            Figure(
                "resolution",
                "joules_per_image",
                "Lower is better. Energy of the whole device, idle power included.",
                table=False,
            ),
        ),
        more=tables_of_cost,
    ),
    Family(
        measure="dispersion",
        title="Dispersion",
        about="How the weights of attention spread as the number of tokens n grows: means over a "
        "sample of queries, then over heads, layers of a stage, pictures or seeds.",
        lines=of_dispersion,
        figures=(
            Figure(
                "tokens",
                "n_max_weight",
                "Flat: attention disperses, every weight falling as 1/n; 1 is a plain mean. "
                "Rising in proportion to n: it keeps its focus.",
            ),
            Figure(
                "tokens",
                "entropy_ratio",
                "1 means that all n keys weigh the same; lower is more focused.",
            ),
            Figure(
                "tokens",
                "effective_keys",
                "How many equal weights would have this entropy. Proportional to n: dispersed. "
                "Flat: as many keys as before, whatever the size.",
            ),
            Figure(
                "tokens",
                "mean_distance",
                "How far the output is from the plain mean of the values; falling towards 0, "
                "attention is the mean.",
            ),
            Figure(
                "tokens",
                "softmax_distance",
                "The same for softmax over all tokens with the model's own queries and keys, also "
                "where the model has windows: low is where SEMA's mean stands for full attention.",
            ),
            Figure(
                "tokens",
                "weight_sum",
                "1 for every kernel but MILA's, whose rotation is left out of the denominator.",
            ),
        ),
    ),
    Family(
        measure="study",
        title="Study",
        about="Drawn tasks that isolate one ability each; a model is trained on small pictures and "
        "tested as they, and so the number of tokens n, grow (docs/study.md).",
        lines=of_study,
        figures=(
            Figure(
                "tokens",
                "top1",
                "Higher is better; each panel names its task's chance. Nothing but the size "
                "changes to the right: what a line keeps there is what the mixer can still do at "
                "more tokens than it was trained on. Where models are trained at each size, every "
                "point is a model of its own.",
            ),
        ),
    ),
)
