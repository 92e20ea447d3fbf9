"""`python experiments/main.py VERB …`: the platform of this checkout, whatever is installed beside it.

ray job submit --working-dir . -- python experiments/main.py train experiments/phantom.yaml
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from acdis.cli import main

if __name__ == "__main__":
    main()
