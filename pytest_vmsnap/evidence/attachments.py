"""Evidence as attachments of other plugins' reports: pytest-html and allure-pytest, where they write one."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from pytest_vmsnap.evidence.evidence import Testimony


def attach(config: pytest.Config, report: Any, found: Testimony) -> None:
    """Have what was `found` in the reports that this run writes beside pytest's own."""
    if config.getoption("htmlpath", None):
        _to_html(report, found)
    if config.getoption("allure_report_dir", None):
        _to_allure(found)


def _to_html(report: Any, found: Testimony) -> None:
    """pytest-html has the sections by itself; what is left are the pictures."""
    from pytest_html import extras  # the person's own plugin

    pictures = [
        extras.png(base64.b64encode(piece.data).decode(), name=piece.title)
        for piece in found.pieces
        if piece.is_image
    ]
    report.extras = [*getattr(report, "extras", []), *pictures]


def _to_allure(found: Testimony) -> None:
    import allure  # the person's own plugin

    for piece in found.pieces:
        kind = allure.attachment_type.PNG if piece.is_image else allure.attachment_type.TEXT
        allure.attach(piece.data, name=piece.title, attachment_type=kind)
