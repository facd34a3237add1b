# The two commands of a fresh machine: `make run` and `make test`. Each sets up .venv first; nothing to do costs nothing.
PYTHON ?= python3
CORES ?= 4
BIN = .venv/bin
# Two test files at a time, in the order of tests/conftest.py; within a file tests share what they set up. Three of the
# slow ones: those on Slurm mostly wait.
SPREAD = --dist loadfile --no-loadscope-reorder --durations 25
.DEFAULT_GOAL := run
.PHONY: run test test-slow bench bench-recipes golden style lock readme-tables check-pins environment-cpu tiny tiny-bundle scan config-readme sbatch ui clean

run: .venv/runtime
	$(BIN)/snakemake --cores $(CORES)
	@echo "The report lies at $(CURDIR)/results/report.html"

test: .venv/dev
	$(BIN)/python -m pytest $(SPREAD) --numprocesses 2 -m "not slow" tests

test-slow: .venv/dev
	$(BIN)/python -m pytest $(SPREAD) --numprocesses 3 -m slow tests

style: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	MYPYPATH=workflow/scripts $(BIN)/mypy -p pcam
	PYTHONPATH=workflow/scripts $(BIN)/lint-imports

# A marker file records that the environment holds what its list asks for; a failed installation leaves none.
.venv/runtime: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: .venv/runtime requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# Left out of the lock: what torch itself pins exactly for its GPU build, and connection-pool, which has no wheel.
RESOLVE = $(BIN)/uv pip compile --quiet --system-certs --no-annotate --custom-compile-command "make lock" --python-version 3.11 \
	--python-platform x86_64-unknown-linux-gnu --only-binary :all: --no-binary connection-pool
lock: .venv/dev
	$(RESOLVE) requirements.in | grep -vE '^(connection-pool|nvidia-|cuda-|triton)' > requirements.txt
	$(RESOLVE) requirements-dev.in > requirements-dev.txt

# Every pin must have a wheel for every Python we promise.
check-pins: .venv/dev
	for version in 3.11 3.12 3.13; do \
		$(BIN)/uv pip compile --quiet --system-certs --no-deps --only-binary :all: --python-version $$version \
			--python-platform x86_64-unknown-linux-gnu requirements.txt > /dev/null || exit 1; \
		echo "every pin of requirements.txt has a wheel for Python $$version"; \
	done

# Timings, on demand: several rounds, medians, ratios within one run. Needs 10 GB of room below FOLDER.
FOLDER ?= /tmp
bench: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python bench/bench_audit.py results/bench/audit.json --folder $(FOLDER)
	OMP_NUM_THREADS=1 $(BIN)/python bench/bench_attributes.py results/bench/attributes.json --folder $(FOLDER)
	OMP_NUM_THREADS=1 $(BIN)/python bench/bench_training.py results/bench/training.json --folder $(FOLDER)
	$(BIN)/python bench/bench_shards.py results/bench/shards.json --folder $(FOLDER)
	OMP_NUM_THREADS=1 $(BIN)/python bench/bench_inference.py results/bench/inference.json --folder $(FOLDER)

# What each choice of the default recipe is worth on the train and valid patches of a finished run; half an hour.
bench-recipes: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python bench/bench_recipes.py $(RUN) results/bench/recipes.json

# The README's tables: what finished runs reached, by assets/results; what 10⁶ and 10⁸ patches cost, by assets/benchmark.
readme-tables: .venv/dev
	$(BIN)/python bench/result_table.py
	$(BIN)/python bench/cost_table.py

# The losses and proposals that tests keep, after a change that is meant to change them.
golden: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/make_golden.py tests/golden/losses.json
	$(BIN)/python tests/make_proposals.py tests/golden/proposals.json

# MLflow's pages over the runs of this folder, on this machine alone, until Ctrl-C. Another port: make ui PORT=5001
PORT ?= 5000
DATABASE = results/tracking/mlflow.db
ui: .venv/runtime
	@test -f $(DATABASE) || { echo "$(DATABASE): no such file; make run logs every run there"; exit 1; }
	@echo "MLflow opens at http://127.0.0.1:$(PORT)"
	@MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/python -m mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri sqlite:///$(DATABASE)

# What a machine without a GPU installs: the CPU build of torch, which uv picks, saves gigabytes. `make` then finds it in
# place.
environment-cpu:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' requirements-dev.txt)
	$(BIN)/uv pip install --python $(BIN)/python --torch-backend cpu -r requirements.txt -r requirements-dev.txt
	touch .venv/runtime && sleep 1 && touch .venv/dev

# The whole workflow on a tiny set, in this folder: minutes.
tiny: .venv/runtime
	$(BIN)/snakemake --cores $(CORES) --configfile tests/config/tiny.yaml

# After it, the bundle of its champion, tried elsewhere; then the documents anew, which tell of it.
tiny-bundle: tiny
	$(BIN)/snakemake --cores $(CORES) --configfile tests/config/tiny.yaml results/handover/verify.json
	$(BIN)/snakemake --cores $(CORES) --configfile tests/config/tiny.yaml

# Secrets in any tracked file, and what is unsafe in the workflows of .github. Digests are hexadecimal and no secrets.
scan: .venv/dev
	$(BIN)/uv tool run --from detect-secrets==1.5.0 detect-secrets-hook --disable-plugin HexHighEntropyString \
		--exclude-secrets '^secret$$' $$(git ls-files -- ':!assets')
	$(BIN)/uv tool run --from zizmor==1.32.0 zizmor --offline --min-severity medium .github

config-readme: .venv/dev
	$(BIN)/python tests/render_config_readme.py > config/README.md

# The batch files of profiles/slurm, after a change of the settings in its config.yaml.
sbatch: .venv/runtime
	$(BIN)/python profiles/slurm/make_sbatch.py

clean:
	rm -rf results data .snakemake
