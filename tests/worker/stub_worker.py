"""`python -m worker` with the stub trainer; STUB_STORAGE_DELAY shortens the wait after a full disk, in seconds."""

import os
import sys
from pathlib import Path

from worker.__main__ import main
from worker.attempt import finalizer

STUB = (sys.executable, str(Path(__file__).with_name("stub_trainer.py")))

finalizer.STORAGE_DELAY = float(os.environ.get("STUB_STORAGE_DELAY", finalizer.STORAGE_DELAY))

if __name__ == "__main__":
    main(command=STUB)
