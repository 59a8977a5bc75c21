"""Training, on one page: collect, update, evaluate, checkpoint."""

from __future__ import annotations

from worldmodel.experience.collector import RandomPolicy
from worldmodel.training.run import Run
from worldmodel.training.schedule import Schedule
from worldmodel.training.world import World


def train(world: World, schedule: Schedule, run: Run) -> None:
    """Train until the schedule is over, from where the run stands.

    Args:
        world: environments, replay, collector and agent of this rank.
        schedule: how long, and what is due when.
        run: the folder that everything is kept in, and how far it has come.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the update was finished and all is saved.
        UserError: something that the person at the keyboard can mend. The last checkpoint stays.
    """
    agent, replay, collector, progress = world.agent, world.replay, world.collector, run.progress

    run.resume()  # from last.ckpt; a new run writes its first
    if not progress.fitted:
        for _ in run.filling(schedule.prefill):
            collector.collect(RandomPolicy(agent.action), 1)
            run.stop_if_asked()
        fit_statistics(world, run)

    while not schedule.is_over(progress):
        if progress.update == 0:
            run.finished += collector.collect(agent.policy(explore=True), schedule.steps)
            if world.total(len(replay)) >= 4 * progress.fitted:
                fit_statistics(world, run)

        while progress.update < schedule.updates:
            run.add(agent.update(world.sample()))
            run.stop_if_asked()

        run.end_round()
        is_better = schedule.evaluates(progress) and run.evaluate()
        if progress.round % schedule.console_every == 0 or schedule.is_over(progress):
            run.log()
        if is_better or progress.round % schedule.checkpoint_every == 0 or schedule.is_over(progress):
            run.save(is_better)


def fit_statistics(world: World, run: Run) -> None:
    """Whiten pixels by what the replay holds now; again once it has grown fourfold."""
    world.fit_statistics()
    run.progress.fitted = world.total(len(world.replay))
