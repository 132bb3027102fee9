"""
Values that the pipeline's string arguments accept.

This module imports neither torch nor diffusers, so that a command line can list the values at once. The comment beside
each list names the module that implements it.
"""

from __future__ import annotations

from typing import Literal, get_args


SOLVER_NAMES = ("euler", "midpoint", "rf_solver", "fireflow", "uni_inv")  # schedulers.py

ValueSource = Literal["reconstruction", "inversion"]  # injection.py
VALUE_SOURCES: tuple[ValueSource, ...] = get_args(ValueSource)

InjectionRule = Literal["paper", "released"]  # injection.py
INJECTION_RULES: tuple[InjectionRule, ...] = get_args(InjectionRule)

CacheDevice = Literal["model", "cpu"]  # value_cache.py
CACHE_DEVICES: tuple[CacheDevice, ...] = get_args(CacheDevice)

Confinement = Literal["none", "latent", "pixel", "visible"]  # confinement.py
CONFINEMENTS: tuple[Confinement, ...] = get_args(Confinement)

ComputeMode = Literal["target", "full"]  # target_rows.py
COMPUTE_MODES: tuple[ComputeMode, ...] = get_args(ComputeMode)

RepairSource = Literal["region", "surroundings"]  # repair_denoising.py
REPAIR_SOURCES: tuple[RepairSource, ...] = get_args(RepairSource)

CORRUPTION_NAMES = ("proposed", "blur", "downscale", "rotate", "gaussian")  # corruptions.py
