"""Folder of the pairs that a person keeps, which is read, reported on, merged and published like a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from diffusers_artifact.visible_change import definition
from evaluate_metrics.functional.versions import recorded_versions

from ..engine.ledger import Totals, json_lines, marker, read_totals
from ..engine.locks import lock_folder
from ..engine.settings import RunSettings
from ..engine.shards import SOURCES_FILE
from ..figures.sheets import contact_sheets, save_pages
from ..pairs.card import write_pair_card
from ..pairs.storage import PairWriter, read_pairs
from ..schema.run_record import RUN_FILE, RunRecord
from ..utils.errors import UserError
from ..utils.files import replacing, write_json, write_text
from .bench import Workbench
from .studio import BACKEND, check_kept
from .wishes import Made


# Beyond, drawing all pairs again takes longer than a person waits.
_MOST_ON_SHEET = 24


class KeptPairs:
    """
    Folder of kept pairs, one to a shard.

    Args:
        folder (`Path`): The folder; it is made with the first pair.
        bench (`Workbench`): Workbench that makes the pairs.

    Raises:
        UserError: The folder holds a run of another kind, or pairs of another model or other versions of packages.
    """

    def __init__(self, folder: Path, bench: Workbench) -> None:
        self.folder, self.bench = folder, bench
        if (folder / RUN_FILE).exists():
            self._check(RunRecord.read(folder))
        elif (folder / "data").is_dir() and any((folder / "data").iterdir()):
            raise UserError(f"'{folder}' holds data without the record of a run; choose another folder")

    def __len__(self) -> int:
        return RunRecord.read(self.folder).pairs if (self.folder / RUN_FILE).exists() else 0

    def keep(self, made: Made) -> str:
        """
        Write the pair of an artifact.

        Returns:
            `str`: Id of the pair.

        Raises:
            UserError: Nothing of the artifact is to be seen.
        """
        if not made.artifact.mask.any():
            raise UserError("an artifact that cannot be seen must not be kept; shuffle, or enlarge the region")
        with FileLock(lock_folder(self.folder) / "keep.lock"):
            sources = self._sources()
            variant = sum(line["source_id"] == made.photo.name for line in sources)
            pair, shard = self.bench.pair(made, variant), len(sources)
            identity = self._identity([*(line["source_id"] for line in sources), pair.source_id])
            fingerprint = _hash({name: value for name, value in identity.items() if name != "sources"})
            totals = Totals(seconds=made.seconds)
            totals.count([pair], [])
            totals.counters["token_evaluations"] = made.token_evaluations  # type: ignore[assignment]
            with (
                replacing(self.folder / "data" / f"pairs-{shard:05d}.parquet") as temporary,
                PairWriter(temporary) as writer,
            ):
                writer.write([pair])
            line = {"source_id": pair.source_id, "shard": shard, "variants": [variant, variant + 1]}
            write_text(self.folder / SOURCES_FILE, "".join(json_lines([*sources, line])))
            write_json(marker(self.folder, shard), {"fingerprint": fingerprint, **totals.as_dict(), "rejected": []})
            self._describe(identity, fingerprint)
        return pair.pair_id

    def _describe(self, identity: dict[str, Any], fingerprint: str) -> None:
        totals = read_totals(self.folder)
        record = RunRecord(
            **identity,
            status="complete",
            fingerprint=fingerprint,
            pairs=totals.pairs,
            made=dict(totals.by_type(totals.accepted)),
            accepted=dict(totals.by_type(totals.accepted)),
            acceptance=totals.acceptance,
            counters=dict(totals.counters),
            seconds=round(totals.seconds, 3),
        )
        write_text(self.folder / "rejected.jsonl", "")
        write_pair_card(self.folder, record)
        if record.pairs <= _MOST_ON_SHEET:
            save_pages(contact_sheets(read_pairs(self.folder)), self.folder / "contact_sheet.png")
        record.write(self.folder)

    def _sources(self) -> list[dict[str, Any]]:
        """Read the list of photos, without one that a killed process listed but did not finish."""
        if not (self.folder / SOURCES_FILE).exists():
            return []
        lines = (self.folder / SOURCES_FILE).read_text(encoding="utf-8").rstrip("\n").split("\n")
        return [line for line in map(json.loads, lines) if marker(self.folder, line["shard"]).exists()]

    def _identity(self, names: list[str]) -> dict[str, Any]:
        injector = self.bench.injector
        settings = RunSettings(
            model=injector.model,
            revision=self.bench.revision,
            loading=injector.loading,
            injection=injector.settings,
            max_artifacts=1,
            shard_size=1,
        )
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        identity = {
            "settings": asdict(settings),
            "model_revision": injector.revision,
            "perception": {"backend": BACKEND},
            "curation": {"metric": None, "visible_change": definition(), "detector": None, "vlm": None},
            "versions": recorded_versions(),
            "sources": {"count": len(names), "sha256": digest},
        }
        return json.loads(json.dumps(identity))

    def _check(self, recorded: RunRecord) -> None:
        check_kept(self.folder, recorded)
        now = self._identity([])
        for name in ("model_revision", "versions"):
            if now[name] != getattr(recorded, name):
                raise UserError(
                    f"'{self.folder}' holds pairs of another {name.replace('_', ' ')}; choose another folder, and "
                    "join both with `artiagent merge`"
                )


def _hash(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
