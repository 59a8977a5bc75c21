"""PPO learned in dreams alone, then put into the real environment: ``python -m experiments.dream_ppo RUN [--limit 5]``.

Stable-Baselines3's PPO with its defaults (``pip install 'worldmodel[sb3]'``), rewards scaled by its ``VecNormalize``,
learns in a ``DreamVectorEnv`` of a run, from no real frame more than the run has seen. Then its policy acts in the real
environment through the run's encoder and filter, on the same episodes as the run's own actor. Prints a JSON object as
its last line. With ``--policy FILE`` what was learned is kept there, and learning goes on from it; ``--steps 0`` then
only looks at it, ``--episodes 0`` only learns.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import worldmodel as wm
from worldmodel.control.truncation import AtLimit


class Watch(BaseCallback):
    """Stops after some seconds, counts how dreams end, notes their mean return, and keeps what was learned so far."""

    def __init__(self, seconds: float, kept: Path | None) -> None:
        super().__init__()
        self.kept = kept
        self.until = time.monotonic() + seconds
        self.ended = self.uncertain = 0
        self.returns: list[tuple[int, float]] = []

    def _on_rollout_start(self) -> None:  # and so after an update
        if self.kept is not None:
            self.model.save(self.kept)

    def _on_rollout_end(self) -> None:
        episodes = self.model.ep_info_buffer or []
        self.returns.append((self.num_timesteps, round(float(np.mean([x["r"] for x in episodes])), 2)))
        print(f"dream steps {self.num_timesteps:8d}   return of a dream {self.returns[-1][1]:8.2f}", flush=True)

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            self.ended += "terminal_observation" in info
            self.uncertain += info.get("terminal_observation") is not None and info["uncertain"]
        return time.monotonic() < self.until


def learn(run: Path, options: argparse.Namespace) -> tuple[wm.DreamVectorEnv, PPO, dict[str, Any]]:
    """A policy of dreams alone, and what there is to say of its learning."""
    dreams = wm.DreamVectorEnv.from_run(
        run,
        options.dreams,
        horizon=options.horizon,
        autoreset_mode="SameStep",
        truncation=None if options.limit is None else AtLimit(options.limit),
        uncertainty_weight=options.uncertainty_weight,
    )
    # observations stay as they are in the real environment; rewards are scaled, or the critic's loss drowns the actor's
    env = VecNormalize(VecMonitor(dreams.stable_baselines()), norm_obs=False)
    kept = options.policy
    begun, watch = time.process_time(), Watch(options.seconds, kept)
    if kept is not None and kept.exists():
        learner = PPO.load(kept, env, device="cpu")
    else:
        learner = PPO("MlpPolicy", env, seed=options.seed, device="cpu")
    learner.learn(options.steps, callback=watch, reset_num_timesteps=False)
    if kept is not None:
        learner.save(kept)
    said = {
        "dream_steps": learner.num_timesteps,
        "processor_seconds": round(time.process_time() - begun, 1),
        "dreams_ended": watch.ended,
        "dreams_ended_by_uncertainty": watch.uncertain,
        "dream_returns": watch.returns,
    }
    return dreams, learner, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--limit", type=float, help="uncertainty that ends a dream; none does if it is left out")
    parser.add_argument("--uncertainty_weight", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=300_000, help="of all dreams together, at most")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of learning, at most")
    parser.add_argument("--policy", type=Path, help="a .zip to keep what was learned in, and to go on from")
    parser.add_argument("--dreams", type=int, default=8)
    parser.add_argument("--horizon", type=int, default=50)
    parser.add_argument("--episodes", type=int, default=10, help="real ones, of each policy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dreams, learner, said = learn(options.run, options)
    print(json.dumps(said))
    if not options.episodes:
        return
    agent, data = wm.load(options.run)
    policies = {
        "ppo": dreams.policy(lambda seen: learner.predict(seen, deterministic=True)[0]),
        "actor": agent.policy(explore=False),
    }
    real = {
        name: [round(x.return_, 1) for x in wm.run_episodes(data.held_out("report"), policy, options.episodes)]
        for name, policy in policies.items()
    }
    data.close()
    means = {name: round(float(np.mean(returns)), 1) for name, returns in real.items()}
    settings = {"limit": options.limit, "horizon": options.horizon, "dreams": options.dreams, "seed": options.seed}
    print(json.dumps({**settings, **said, "real_returns": real, "real_mean": means}))


if __name__ == "__main__":
    main()
