"""Artifacts as attachments in the reports of pytest-html and allure-pytest, if these write one."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from pytest_vmsnap.evidence.evidence import CollectedEvidence


def attach(config: pytest.Config, report: Any, found: CollectedEvidence) -> None:
    """Attach what was `found` to the reports of other plugins that this run writes."""
    if config.getoption("htmlpath", None):
        _to_html(report, found)
    if config.getoption("allure_report_dir", None):
        _to_allure(found)


def _to_html(report: Any, found: CollectedEvidence) -> None:
    """Attach the pictures; pytest-html shows the sections by itself."""
    from pytest_html import extras  # installed, or its option would not be set

    pictures = [
        extras.png(base64.b64encode(artifact.data).decode(), name=artifact.title)
        for artifact in found.artifacts
        if artifact.is_image
    ]
    report.extras = [*getattr(report, "extras", []), *pictures]


def _to_allure(found: CollectedEvidence) -> None:
    import allure  # installed, or its option would not be set

    for artifact in found.artifacts:
        kind = allure.attachment_type.PNG if artifact.is_image else allure.attachment_type.TEXT
        allure.attach(artifact.data, name=artifact.title, attachment_type=kind)
