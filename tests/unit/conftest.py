"""What the unit tests of post_install start, `python -m barehub.supervisor` and others, find barehub here."""

import os
from pathlib import Path

os.environ["PYTHONPATH"] = str(Path(__file__).parents[2] / "post_install")
