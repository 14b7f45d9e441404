"""Tables of measurements, some rows of which only a GPU can give."""

from pathlib import Path
from typing import Any

from diffusion_edu import checkpoints


def write_table(path: Path, table: dict[str, Any]) -> None:
    """Write a table whose `rows` say their `device`, atomically; where no row is from a GPU, null and a note say so."""
    count = sum(row["device"] == "cuda" for row in table["rows"])
    note = None if count else "no GPU was at hand: its rows are missing, none is an estimate"
    checkpoints.write_json(path, table | {"gpu_rows": count or None, "gpu_note": note})
