"""Settings: one table, each row in the manual, an unknown one stops the start."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from pacs.errors import SettingsError
from pacs.settings import Settings
from tests.house.manual import settings_manual

ROOT = Path(__file__).resolve().parents[2]


def test_manual_is_up_to_date() -> None:
    """`python -m tests.house.manual` writes it."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_manual()


def test_every_setting_says_what_it_does() -> None:
    for entry in fields(Settings):
        assert entry.metadata["help"].rstrip().endswith("."), entry.name


def test_unknown_and_unreadable_settings_stop_the_start() -> None:
    with pytest.raises(SettingsError, match="there is no setting PACS_NO_SUCH"):
        Settings.from_environment({"PACS_NO_SUCH": "1"})
    with pytest.raises(SettingsError, match="not a number"):
        Settings.from_environment({"PACS_QUERY_LIMIT": "many"})
    with pytest.raises(SettingsError, match="negative"):
        Settings.from_environment({"PACS_QUERY_LIMIT": "-1"})
    assert Settings.from_environment({"PATH": "/bin"}) == Settings()
