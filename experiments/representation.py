"""Drawing against not drawing: ``python -m experiments.representation``, and ``--page`` for docs/representation.md.

Each representation loss with no decoder beside it, against the decoder's reconstruction and against both losses at
once, for the same minutes.
"""

from __future__ import annotations

from experiments.variants import Study, main
from worldmodel.training.configs import names

NO_DECODER = ("--model.world_model.decoder", "null")
BOTH = ("--model.representation.init_args.beside", "true", "--model.world_model.init_args.decode_fraction", "0.5")
STUDY = Study(
    name="representation",
    title="Representation losses",
    text=(
        "Made by `python -m experiments.representation` and `--page`. The decoder's reconstruction against losses\n"
        "that draw nothing, with no decoder beside them, and (`both`) next_embedding beside the reconstruction, each\n"
        "for the same minutes of training on one core, evaluations apart. A cell is the mean over the seeds, with\n"
        "each in brackets; frames and minutes are the most that all runs of a task came to. What an update costs\n"
        "alone is `python -m benchmarks.representations`."
    ),
    variants={"decoder": ()}
    | {
        name.removeprefix("representation/"): ("--config", name, *NO_DECODER)
        for name in names("representation")
        if name != "representation/decoder"
    }
    | {"both": ("--config", "representation/next_embedding", *BOTH)},
    tasks=("cartpole_swingup", "cartpole_balance"),
    minutes=20.0,
)

if __name__ == "__main__":
    main(STUDY)
