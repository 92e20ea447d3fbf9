"""`python experiments/main.py VERB …`: the platform of this checkout, whatever is installed beside it.

ray job submit --working-dir . -- python experiments/main.py train experiments/phantom.yaml
"""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))


def find_environment() -> None:
    """Go on with the checkout's `.venv` where this Python lacks what the platform stands on."""
    if importlib.util.find_spec("typer") and importlib.util.find_spec("pydantic"):
        return
    python = ROOT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix) != ROOT / ".venv":
        os.execv(python, [str(python), *sys.argv])
    sys.exit(f"{sys.executable} lacks what the platform needs; `make install` in {ROOT} makes .venv with it")


if __name__ == "__main__":
    find_environment()
    from acdis.cli import main

    main()
