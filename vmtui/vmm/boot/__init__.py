"""From a kernel file to a guest whose first processor only has to be started."""
