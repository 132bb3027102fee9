"""BibTeX entries that several metrics and benchmarks share."""

from __future__ import annotations


ARTIAGENT = """\
@inproceedings{park2026artiagent,
  title={See and Fix the Flaws: Enabling {VLM}s and Diffusion Models to Comprehend Visual Artifacts via
    Agentic Data Synthesis},
  author={Park, Jaehyun and Ahn, Minyoung and Kim, Minkyu and Lee, Jonghyun and Lee, Jae-Gil and Park, Dongmin},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2026},
}"""

SYNARTIFACT = """\
@article{cao2024synartifact,
  title={{SynArtifact}: Classifying and Alleviating Artifacts in Synthetic Images via Vision-Language Model},
  author={Cao, Bin and Yuan, Jianhao and Liu, Yexin and Li, Jian and Sun, Shuyang and Liu, Jing
    and Zhao, Bo},
  journal={arXiv preprint arXiv:2402.18068},
  year={2024},
}"""
