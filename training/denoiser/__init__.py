"""
What the scripts that fine-tune denoisers share: rollouts of a stock pipeline, LoRA, guards, and the loop.

- `rollout.Denoiser`: prompts, noise, steps, gradients and images of a stock pipeline.
- `lora`: a LoRA that loads into the stock pipeline; the model without it, for a KL term.
- `guards.Guards`: what must not get worse while something else gets better.
- `loop.DenoiserLoop`: optimizer, EMA, checkpoints, log; a script plugs an `loop.Objective` in.
- `policy`, `advantages`, `policy_loss`, `policy_objective`: reinforcement, by the `rewards` of a registry.
- `arguments`, `data`, `preparation`: the arguments that the scripts have in common, and what is loaded by them.
- `preference`, `preference_data`, `preference_objective`: the loss of `pair_dpo`, pairs as latents, pairs held out.
"""
