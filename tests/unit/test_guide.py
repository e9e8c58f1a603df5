"""`barehub help`: the guide, one part of it, and the guides of overlays."""

from pathlib import Path

import pytest
from barehub import guide
from barehub.errors import Exit, UserError

SHIPPED = Path(__file__).parents[2] / "post_install/data/share/barehub"


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A release's share/barehub with a short guide and one of an overlay."""
    (tmp_path / "guides").mkdir()
    (tmp_path / "ADMIN.md").write_text("# Guide\n\nHello.\n\n## Install\n\nRun it.\n\n## Back up, restore\n\nCopy.\n")
    (tmp_path / "guides/slurm.md").write_text("# Jobs\n\n## Install\n\nElsewhere.\n")
    return tmp_path


def test_a_topic_is_a_section_or_an_overlays_guide(share: Path) -> None:
    assert guide.find(share, "install") == "## Install\n\nRun it.\n\n"
    assert guide.find(share, "Restore") == "## Back up, restore\n\nCopy.\n"
    assert guide.find(share, "slurm").startswith("# Jobs")


@pytest.mark.parametrize(("topic", "complaint"), [("ldap", "no topic is named ldap"), ("s", "s names several topics")])
def test_what_is_no_topic_is_refused_with_those_there_are(share: Path, topic: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as error:
        guide.find(share, topic)
    assert error.value.code == Exit.USAGE
    assert error.value.fix == "use one of: install, back up, restore, slurm"


def test_the_whole_guide_names_the_overlays_guides(share: Path) -> None:
    assert guide.whole(share).startswith("# Guide")
    assert guide.whole(share).endswith("## More topics\n\n`barehub help TOPIC`: slurm.\n")


def test_without_a_terminal_it_is_printed(share: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide.show(share, "install")
    assert capsys.readouterr().out.startswith("## Install\n\nRun it.\n")


@pytest.mark.parametrize("topic", ["install", "https", "packages", "upgrade", "back up", "uninstall", "exit codes"])
def test_the_guide_that_ships_has_the_topics_that_messages_name(topic: str) -> None:
    assert len(guide.find(SHIPPED, topic)) > 80
