"""How much imagination a model-free learner wants: ``python -m experiments.dyna``, and ``--page`` for docs/dyna.md.

``policy/dyna`` with shares of imagined transitions from 0 (model-free) to 1 (imagination alone, from the first update),
on the same tasks and seeds for the same minutes.
"""

from __future__ import annotations

from experiments.variants import Study, main

SHARES = (0, 0.05, 0.5, 1)
CONTROL = "--model.actor_critic.init_args"
ALONE = (f"{CONTROL}.imagined_after", "0")
STUDY = Study(
    name="dyna",
    title="Real and imagined transitions",
    text=(
        "Made by `python -m experiments.dyna` and `--page`. `policy/dyna` with four shares of imagined\n"
        "transitions in the losses, from none to all, each for the same minutes of training on one core,\n"
        "evaluations apart. Shares between begin at 0 for a while (`imagined_after`). A cell is the mean over the\n"
        "seeds, with each in brackets; frames and minutes are the most that all runs of a task came to."
    ),
    variants={
        f"share_{share:g}": (
            *("--config", "policy/dyna", f"{CONTROL}.imagined_share", f"{share:g}"),
            *(ALONE if share == 1 else ()),
        )
        for share in SHARES
    },
    tasks=("cartpole_swingup", "cartpole_balance"),
    minutes=20.0,
)

if __name__ == "__main__":
    main(STUDY)
