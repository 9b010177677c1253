# Everything a newcomer needs: `make serve`, `make test`. Both build what they need first.
# Wants python3 >= 3.11 with venv and headers, a C compiler, make; nothing else (Debian: see below).

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.built
# One more than there are cores: a quarter of the time of a test is waiting, for a line, a browser, a disk.
JOBS    ?= $(shell expr $$(nproc) + 1)
ARCHIVE ?= ./archive

SOURCES := pyproject.toml setup.py $(wildcard pacs/_codecs/*.pyx pacs/_codecs/*.pxd pacs/_codecs/ht/*.h)

.PHONY: help serve test build lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make serve   build, then serve ./archive at http://127.0.0.1:8080 (a small demo goes into an empty archive);"
	@echo "             another folder or port: make serve ARCHIVE=DIR ARGS='--port 8081'"
	@echo "make test    build, then run the whole test suite"
	@echo "make build   virtual environment in .venv, the package and its Cython extensions in it"
	@echo "make lint    ruff, mypy --strict"
	@echo "make bench   measure, over HTTP with a real server"
	@echo "make clean   remove .venv and whatever was compiled (never the archive)"

build: $(STAMP)

# Editable: the package runs from the checkout, its extensions lie beside their sources. The stamp is older than a
# changed source or dependency list, never than a changed Python file, so that a second start costs nothing.
$(STAMP): $(SOURCES)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh ./build.sh
	@touch $@

serve: build
	@exec $(BIN)/pacs serve --archive "$(ARCHIVE)" --demo $(ARGS)

# Bytecode is kept, whatever the environment says: two processes test, and commands are started again and again.
test: export PYTHONDONTWRITEBYTECODE =
test: build
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

lint: build
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: build
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info pacs/_codecs/*.c pacs/_codecs/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
