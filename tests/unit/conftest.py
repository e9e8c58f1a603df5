"""Programs that the unit tests start, such as `python -m barehub.proxy_unit.supervisor`, import this tree."""

import os
from pathlib import Path

os.environ["PYTHONPATH"] = str(Path(__file__).parents[2] / "post_install")
