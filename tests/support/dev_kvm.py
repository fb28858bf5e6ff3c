"""What tests that make a VM need of /dev/kvm: that it opens. Whether it runs Linux is for the lab to show."""

from __future__ import annotations

import os

import pytest

needs_kvm = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs /dev/kvm, to make a VM")
