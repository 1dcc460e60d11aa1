"""The options: one table, and the code that reads it.

Each row is an option on the command line (``--vmsnap-NAME``, with dashes), in the environment
(``VMSNAP_NAME``) and in pytest's configuration file (``vmsnap_NAME``), in this order of precedence. All
functions take plain mappings, so that code without pytest can read the three sources in the same way.
"""

from pytest_vmsnap.options.option import Option, OptionError
from pytest_vmsnap.options.report import changed
from pytest_vmsnap.options.resolve import native_table, resolve, unknown_variables
from pytest_vmsnap.options.table import BY_NAME, OPTIONS

__all__ = [
    "Option",
    "OptionError",
    "changed",
    "native_table",
    "resolve",
    "unknown_variables",
    "BY_NAME",
    "OPTIONS",
]
