"""Plugins that the pytest processes of tests leave out, wherever they are installed.

pytest-randomly shuffles tests. Hypothesis's plugin imports all of hypothesis, which takes longer than the rest
of such a process. A test that needs one of them asks for it: ``("-p", "randomly")``.
"""

from __future__ import annotations

OPTIONS = ("-pno:randomly", "-pno:hypothesispytest")
ADDOPTS = " ".join(OPTIONS)
