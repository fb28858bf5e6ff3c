VENV := .venv
PY := $(VENV)/bin/python
.PHONY: run test
