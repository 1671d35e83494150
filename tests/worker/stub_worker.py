"""`python -m worker` with the stub for a trainer."""

import sys
from pathlib import Path

from worker.__main__ import main
from worker.app import dispatcher

dispatcher.command = (sys.executable, str(Path(__file__).with_name("stub_trainer.py")))

if __name__ == "__main__":
    main()
