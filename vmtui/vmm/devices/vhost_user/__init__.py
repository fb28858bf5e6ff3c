"""Devices whose queues another process serves, by the vhost-user protocol (QEMU, docs/interop/vhost-user.rst).

That process maps the guest's memory, is kicked by the ioeventfds and interrupts by the irqfds: nothing of the data
passes through here.
"""
