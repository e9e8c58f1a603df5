"""Makes the conda packages of a barehub release: wheels in, a channel and its lock out."""
