"""Drawing against not drawing: ``python -m experiments.representation``, and ``--page`` for docs/representation.md.

Each representation loss with no decoder beside it, against the decoder's reconstruction, for the same minutes.
"""

from __future__ import annotations

from experiments.variants import Study, main
from worldmodel.training.configs import names

NO_DECODER = ("--model.world_model.decoder", "null")
STUDY = Study(
    name="representation",
    title="Representation losses",
    text=(
        "Made by `python -m experiments.representation` and `--page`. The decoder's reconstruction against losses\n"
        "that draw nothing, with no decoder beside them, each for the same minutes of training on one core,\n"
        "evaluations apart. A cell is the mean over the seeds, with each in brackets; frames and minutes are the\n"
        "most that all runs of a task came to. What an update costs alone is `python -m\n"
        "benchmarks.representations`."
    ),
    variants={"decoder": ()}
    | {
        name.removeprefix("representation/"): ("--config", name, *NO_DECODER)
        for name in names("representation")
        if name != "representation/decoder"
    },
    tasks=("cartpole_swingup", "cartpole_balance"),
    minutes=20.0,
)

if __name__ == "__main__":
    main(STUDY)
