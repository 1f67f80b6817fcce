# The same commands for people and for CI.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: run test check format faults isolation fuzz load soak prove coverage mutation audit \
	baseline extension test-extension-soak clean
N ?= 100
SEED ?= 1
SAVES ?= 0
SAMPLE ?= 0
EXAMPLES ?= 950
SOURCES = main.py core storage routers

run: $(VENV)/.run
	@exec $(BIN)/python main.py

test: $(VENV)/.dev check
	@$(BIN)/python -m core.minilm models
	$(BIN)/python -m pytest -n 3 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd extension && npm run --silent check
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml $(SOURCES) 2>/dev/null
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --no-verify --baseline .secrets.baseline

# Look at what is new before: passwords of tests, checksums and public keys may stand in it.
baseline: $(VENV)/.dev
	$(BIN)/detect-secrets scan --slim --no-verify --exclude-files '(^|/)(package-lock\.json|\.secrets\.baseline)$$' > .secrets.baseline

# Known vulnerabilities; needs the internet, and says so where there is none.
audit: $(VENV)/.dev
	@$(BIN)/python -m tests.audit

# The whole suite once more, slower; servers that it starts are followed too.
coverage: $(VENV)/.dev
	@rm -rf .coverage && mkdir .coverage
	$(BIN)/coverage run -m pytest -n 3 --dist loadfile --timeout 600
	@$(BIN)/coverage combine --quiet
	@$(BIN)/python -m tests.covered

# How many faults put into auth, limiter, change sequence and ownership the tests notice: hours.
# SAMPLE=40 takes so many of each part.
mutation: $(VENV)/.dev
	nice -n 10 $(BIN)/python -m tests.mutation --sample $(SAMPLE) --seed $(SEED)

# The published run is `make faults N=1000 SAVES=50000`.
faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults --faults $(N) --seed $(SEED) --saves $(SAVES)

isolation: $(VENV)/.dev
	$(BIN)/python -m pytest -s tests/test_isolation.py -k "ever_reaches and faiss" --steps 100000 --timeout 7200

fuzz: $(VENV)/.dev
	$(BIN)/python -m pytest -s tests/test_openapi.py --examples $(EXAMPLES) --seed $(SEED) --timeout 14400

load: $(VENV)/.dev
	$(BIN)/python benchmarks/load.py

soak: $(VENV)/.dev
	$(BIN)/python benchmarks/soak.py

# The short form of all evidence, in one table.
prove: $(VENV)/.dev
	$(BIN)/python benchmarks/prove.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What Chrome loads is extension/dist/chrome; the zip beside it is what a store takes.
extension: extension/node_modules/.package-lock.json
	cd extension && npm run --silent build
	@rm -f extension/dist/memory-layer-chrome.zip
	cd extension/dist/chrome && $(PYTHON) -m zipfile -c ../memory-layer-chrome.zip *

test-extension-soak: $(VENV)/.dev
	$(BIN)/python -m tests.extension.soak

extension/node_modules/.package-lock.json: extension/package-lock.json
	cd extension && npm ci --silent --no-audit --no-fund

$(VENV)/.run: requirements.txt
	@echo "Setting up Python packages in $(VENV) (about a minute, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run tests/clients/supabase_js/package-lock.json \
		tests/clients/axe/package-lock.json extension/node_modules/.package-lock.json
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@cd tests/clients/supabase_js && npm ci --silent --no-audit --no-fund
	@cd tests/clients/axe && npm ci --silent --no-audit --no-fund
	@$(BIN)/python -m tests.browser
	@touch $@

clean:
	rm -rf $(VENV) models .mypy_cache .pytest_cache .ruff_cache
