"""Vendors' images by name, such as ``ubuntu:24.04``.

`provide`, which fetches them, is imported only when it is needed: it imports requests.
"""

from pytest_vmsnap.image.vendors.names import Vendor, VendorName, is_vendor_name, parse_name, vendors

__all__ = ["Vendor", "VendorName", "is_vendor_name", "parse_name", "vendors"]
