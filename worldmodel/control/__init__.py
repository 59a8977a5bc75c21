"""How to act in the model: imagination, actor and critic, policies."""
