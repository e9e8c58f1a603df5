"""GPUs as Slurm writes them: GRES, `gpu[:KIND][:no_consume][:COUNT][(SOCKETS)]` (slurm.conf(5), Gres=)."""

import re
from collections import Counter
from collections.abc import Mapping

SHARD = "shard"  # a kind of its own: a share of a GPU (gres.conf(5), "shard")
SUFFIXES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}


def read_gpus(gres: str) -> dict[str, int]:
    """Return how many of each kind a node has, or uses: "" for those of no kind, `shard` for shares.

    Kinds are a site's names, `a100`, or those of MIG, `1g.5gb`. `(null)` stands for no kind in GresUsed.
    """
    count: Counter[str] = Counter()
    gres = re.sub(r"\((?!null\))[^)]*\)", "", gres).replace("(null)", "")
    for one in gres.split(","):
        name, *more = one.strip().split(":")
        if name not in ("gpu", SHARD):
            continue
        words = [word for word in more if word != "no_consume"]
        number = re.fullmatch(r"(\d+)([KMGTP]?)", words[-1].upper()) if words else None
        kind = words[0] if len(words) > bool(number) else ""
        count[SHARD if name == SHARD else kind] += int(number[1]) * SUFFIXES[number[2]] if number else 1
    return dict(count)


def count_gpus(gres: str) -> int:
    """Return the GPUs in a GRES, of whatever kind."""
    return whole(read_gpus(gres))


def whole(gpus: Mapping[str, int]) -> int:
    """Return how many GPUs these are, shares left out."""
    return sum(count for kind, count in gpus.items() if kind != SHARD)


def gres(kind: str, count: int) -> str:
    """Return what sbatch is asked for (sbatch(1), --gres), empty for none."""
    name = kind if kind == SHARD else f"gpu:{kind}".rstrip(":")
    return f"{name}:{count}" if count else ""


def spoken_gpus(gpus: Mapping[str, int]) -> str:
    """Return kinds and numbers in words, `4 a100, 7 1g.5gb, 8 shares`."""
    names = {SHARD: ("share", "shares"), "": ("GPU", "GPUs")}
    return ", ".join(f"{count} {names.get(kind, (kind, kind))[count != 1]}" for kind, count in gpus.items())
