# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. Another encoder
#
# The encoder is one entry of the configuration. This notebook builds the model of the small run twice, once with its
# own encoder and once with a frozen backbone of `timm`, and trains both from the beginning on the stored episodes.

# %%
import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml

import worldmodel
from worldmodel.types import ActionSpec, SequenceBatch

sys.path.append(str(Path(worldmodel.__file__).parents[1] / "notebooks"))  # wherever this is run from
from shared import ROOT, build, gallery, read_episodes, settings, train

UPDATES = 200
episodes = read_episodes()

# %% [markdown]
# ## Two configurations
#
# `configs/encoder/lite0.yaml` names the backbone, what is read of it, and the adapter that is trained. Its weights
# have to be given as a file. None is here, so they stay random, and the comparison says what a *random* backbone is
# worth; with real weights only the line `file` changes.

# %%
own = settings()["model"]
other = yaml.safe_load((ROOT / "configs/encoder/lite0.yaml").read_text())["model"]["world_model"]["init_args"][
    "encoder"
]
swapped = {**own, "world_model": {**own["world_model"]}}
swapped["world_model"]["init_args"] = {**own["world_model"]["init_args"], "encoder": other}
print(yaml.safe_dump(other, sort_keys=False))

warnings.filterwarnings("ignore", ".*is random and frozen")  # said above
models = {}
for name, config in {"patches, trained": own, "backbone, frozen": swapped}.items():
    torch.manual_seed(0)
    models[name], _ = build(config, ActionSpec(1, discrete=False))
    encoder = models[name].encoder
    learns = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    total = sum(p.numel() for p in encoder.parameters())
    print(
        f"{name}: {type(encoder).__name__}, embedding {encoder.embed_dim}, {learns:,} of {total:,} weights are trained"
    )

# %% [markdown]
# ## Features are computed once
#
# A frozen backbone makes the same of a picture every time, to the last bit. So its features can be stored with the
# frame, and only the adapter runs in training. (In a run: `--data.store_features true`.)

# %%
patches, backbone = models.values()
start = time.perf_counter()
features = backbone.encoder.features(episodes.image.flatten(0, 1)).unflatten(0, episodes.reward.shape)
spent = time.perf_counter() - start
print(f"{episodes.reward.numel()} pictures in {spent:.1f} s, features {tuple(features.shape[2:])} each")
assert torch.equal(backbone.encoder.features(episodes.image[0, 7:8])[0], features[0, 7])
assert torch.equal(backbone.embed(episodes.image[:1, :4], features[:1, :4]), backbone.embed(episodes.image[:1, :4]))

# %% [markdown]
# ## Training

# %%
stored = episodes._replace(features=features)


def sampler(data: SequenceBatch, batch: int = 16, length: int = 16) -> SequenceBatch:
    """Sequences (B, T) from random places."""
    episode = torch.randint(len(data.reward), (batch, 1))
    begin = torch.randint(data.reward.shape[1] - length + 1, (batch, 1))
    return data.map(lambda x: x[episode, begin + torch.arange(length)])


weights_before = [p.clone() for p in backbone.encoder.backbone.parameters()]
losses, speed = {}, {}
for (name, model), data in zip(models.items(), (episodes, stored), strict=True):
    torch.manual_seed(1)
    start = time.process_time()
    losses[name] = train(model, lambda data=data: sampler(data), UPDATES, rate=3e-3)
    speed[name] = UPDATES / (time.process_time() - start)
start = time.process_time()
train(backbone, lambda: sampler(episodes), updates=4)  # four more, with the backbone in the loop
speed["backbone, frozen,\nnot stored"] = 4 / (time.process_time() - start)

# %%
_, axes = plt.subplots(1, 3, figsize=(10, 3.2), width_ratios=(1, 1, 0.8))
for panel, which in zip(axes[:2], ("reconstruction", "reward"), strict=True):
    for (name, values), style in zip(losses.items(), ("-", "--"), strict=True):
        panel.plot(np.convolve(values[which], np.ones(10) / 10, "valid"), style, label=name)
    panel.set(xlabel="update", ylabel="loss (mean of 10)", title=which, ylim=(0, None))
    panel.legend(fontsize=9)
axes[2].barh(list(speed), list(speed.values()), color=["C0", "C1", "C4"], height=0.6)
axes[2].set(xlabel="updates in a second of CPU", title="speed")
axes[2].invert_yaxis()
axes[2].grid(axis="y")
plt.show()
for name, value in losses.items():
    print(
        f"{name}: reconstruction {value['reconstruction'][-20:].mean():.1f}, {speed[name]:.1f} updates a second of CPU"
    )

# %% [markdown]
# The frozen weights have not moved, and both models have learned. With random weights the backbone sees less than
# patches that are trained on the task; that is what the left panel shows.

# %%
for before, after in zip(weights_before, backbone.encoder.backbone.parameters(), strict=True):
    assert torch.equal(before, after)
for value in losses.values():
    assert value["reconstruction"][-20:].mean() < 0.8 * value["reconstruction"][:20].mean()
assert speed["backbone, frozen"] > 2 * speed["backbone, frozen,\nnot stored"]

# %%
moments = torch.arange(0, 20, 2)
rows = {"truth": patches.decoder.pixels.resize(episodes.image[0, moments]).mul(255).round().to(torch.uint8)}
with torch.no_grad():
    for name, model in models.items():
        state = model.observe(episodes.map(lambda x: x[:1]), mode=True).state
        rows[name] = model.decoder.image(state.feature[0, moments])
gallery(rows, moments.tolist(), f"reconstructed after {UPDATES} updates, by record")
plt.show()
