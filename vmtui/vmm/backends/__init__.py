"""The programs beside the machine that serve its devices over vhost-user: for the monitor, which may start them."""
