"""A folder in the layout of a Hugging Face Hub repository."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from videogn.export.bundle import KEY, Bundle
from videogn.export.exporter import Source
from videogn.export.model_card import model_card
from videogn.export.safetensors import SafetensorsExporter


@dataclass(kw_only=True)
class HubFolderExporter(SafetensorsExporter):
    """A folder with `model.safetensors`, `config.json` and a model card, `README.md`; nothing is uploaded.

    `huggingface-cli upload NAME FOLDER` would; videogn.load, `predict`, `evaluate` and `export` take the folder like a run.
    """

    suffix: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ("videogn", "safetensors")

    def parts(self, path: Path) -> list[Path]:
        return [path / name for name in ("model.safetensors", "config.json", "README.md")]

    def write(self, source: Source, path: Path) -> None:
        path.mkdir()
        super().write(source, path / "model.safetensors")
        classes = source.bundle.classes
        config: dict[str, Any] = {
            "library_name": "videogn",
            "architectures": [source.description["config"]["model"]["_target_"].rpartition(".")[2]],
            "num_labels": len(classes),
            "id2label": {str(label): name for label, name in enumerate(classes)},
            "label2id": {name: label for label, name in enumerate(classes)},
        }
        (path / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self._result = source.result

    def seal(self, path: Path, bundle: Bundle) -> None:
        super().seal(path / "model.safetensors", bundle)
        file = path / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        config[KEY] = json.loads(bundle.dumps())
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (path / "README.md").write_text(model_card(bundle, config["architectures"][0], self._result), encoding="utf-8")
