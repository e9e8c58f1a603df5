"""`python -m barehub`: see barehub.cli."""

import sys

from barehub.cli import main

sys.exit(main())
