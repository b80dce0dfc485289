# Every target makes .venv and installs what is missing, at the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint types bench clean

demo: $(READY)
	$(BIN)/python -m depthup demo --out demo --overwrite

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The editable install cannot be followed by a type checker, so a copy of the package is checked, for every system.
types: $(READY)
	rm -rf build/types
	$(BIN)/pip install --quiet --no-deps --target build/types .
	for system in linux darwin win32; do MYPYPATH=build/types $(BIN)/mypy --platform $$system --package depthup || exit 1; done

bench: $(READY)
	$(BIN)/python benchmarks/operation.py
	$(BIN)/python benchmarks/upsampling.py

$(READY): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf .venv build demo *.egg-info
