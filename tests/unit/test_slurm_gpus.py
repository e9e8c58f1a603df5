"""The overlay `slurm`: kinds of GPUs, nodes of several sizes, and what is free, from what a Slurm 22.05 printed."""

from pathlib import Path

import pytest
from barehub_slurm.gpus import gres, read_gpus, spoken_gpus
from barehub_slurm.nodes import read_nodes
from barehub_slurm.options import RefusedError

from tests.unit.slurm_commands import Commands
from tests.unit.slurm_recorded import RECORDED, offer, replayed


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return replayed(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu:a100:4(S:0),shard:16", {"a100": 4, "shard": 16}),
        ("gpu:1g.5gb:7,gpu:a100_3g.20gb:2", {"1g.5gb": 7, "a100_3g.20gb": 2}),
        ("gpu:a100:1(IDX:0),shard:(null):0(IDX:N/A)", {"a100": 1, "shard": 0}),
        ("gpu:2,gpu:t4:1", {"": 2, "t4": 1}),
        ("gpu:(null):2(IDX:0-1)", {"": 2}),
        ("shard:a100:8(S:0-1)", {"shard": 8}),
        ("(null)", {}),
    ],
)
def test_kinds_of_gpus_are_read(text: str, found: dict[str, int]) -> None:
    assert read_gpus(text) == found


def test_gpus_are_asked_for_by_kind() -> None:
    asked = [gres(*one) for one in (("a100", 2), ("", 1), ("shard", 4), ("a100", 0), ("1g.5gb", 1))]
    assert asked == ["gpu:a100:2", "gpu:1", "shard:4", "", "gpu:1g.5gb:1"]
    assert spoken_gpus({"a100": 3, "": 1, "shard": 8}) == "3 a100, 1 GPU, 8 shares"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus": 2, "kind": "v100", "cores": 32}, "gpu:v100:2"),
        ({"gpus": 7, "kind": "1g.5gb"}, "gpu:1g.5gb:7"),
        ({"gpus": 16, "kind": "shard"}, "shard:16"),
        ({"gpus": 9}, "gpu:9"),
        ({"gpus": 0, "kind": "v100", "cores": 64}, ""),
    ],
)
def test_what_is_asked_for_exists_on_one_node(commands: Commands, options: dict[str, object], words: str) -> None:
    assert offer(commands).check({"partition": "gpu"} | options).words()["gres"] == words


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"gpus": 3, "kind": "v100"}, "GPUs: a server in the partition gpu can have 2, not 3"),
        ({"gpus": 1, "kind": "v100", "cores": 33}, "Cores: a server in the partition gpu can have 32, not 33"),
        ({"gpus": 1, "kind": "h100"}, "no kind of GPU h100 in the partition gpu; there is 1g.5gb, a100, a100_3g.20gb"),
        ({"gpus": 9, "memory": 500, "cores": 65}, "Cores: a server in the partition gpu can have 64"),
        ({"gpus": 1, "kind": "a100:4"}, "no kind of GPU"),
    ],
)
def test_what_no_node_has_together_is_refused(commands: Commands, options: dict[str, object], why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        offer(commands).check({"partition": "gpu"} | options)


def test_what_the_system_keeps_of_a_node_is_not_offered(commands: Commands) -> None:
    """n1 to n3 have CoreSpecCount=2 of two threads each and MemSpecLimit=4096, n4 CpuSpecList=0,1."""
    main = offer(commands).partitions["main"]
    assert [(shape.cores, shape.memory) for shape in main.shapes] == [(62, 256000)]
    nodeny = offer(commands).partitions["nodeny"]
    assert [(shape.cores, shape.memory) for shape in nodeny.shapes] == [(60, 251904)]


@pytest.mark.parametrize("release", ["slurm_22.05", "slurm_24.11"])
def test_what_is_free_is_what_nodes_would_give_a_job_now(release: str) -> None:
    text = (RECORDED.parent / release / "node.txt").read_text()
    nodes = {line.split()[0][9:]: node for line, node in zip(text.splitlines(), read_nodes(text), strict=True)}
    assert (nodes["g1"].free_cores, nodes["g1"].cores, nodes["g1"].free_gpus) == (60, 64, {"a100": 3, "shard": 16})
    assert (nodes["n1"].cores, nodes["n1"].kept) == (60, (4, 4096))
    assert ("RESERVED" in text) == (nodes["n1"].free_cores == 0)
    assert (nodes["n2"].free_cores, nodes["n4"].kept) == (60, (2, 0))
