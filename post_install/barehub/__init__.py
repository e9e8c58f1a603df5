"""What runs on the target: the layout, units and base configuration of a barehub installation."""

__version__ = "0.1.0"
