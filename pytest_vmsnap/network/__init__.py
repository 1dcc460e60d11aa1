"""A cluster's private network: its switch, the faults on it, and the addresses.

The switch's process imports this package without the rest of the plugin: nothing here may import more than
``errors``, and that only outside of the process.
"""

from pytest_vmsnap.network.addresses import IPV4_PREFIX, IPV6_PREFIX, Address, address_of
from pytest_vmsnap.network.faults import FaultSpec

__all__ = ["Address", "address_of", "IPV4_PREFIX", "IPV6_PREFIX", "FaultSpec"]
