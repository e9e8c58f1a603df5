"""Makes the conda packages of a barehub release from wheels, and locks which ones these are."""
