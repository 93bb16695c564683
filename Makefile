# Linux, Python 3.11 or 3.12, git, make. `make help` lists what there is.
PYTHON ?= python3
JOBS ?= 1
BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
.DEFAULT_GOAL := help
.PHONY: help reproduce verify test smoke lint report verdicts diff data bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/done: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, {sys.executable} is {v[0]}.{v[1]}; set PYTHON=...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

data: .venv/done ## fetch the embedded image sets (from this clone, no network)
	@$(RUN) dvc pull --quiet --remote sample data.dvc

reproduce: data ## run what is missing or changed (JOBS=n: n stages at once), print the verdicts
	@$(RUN) python -m stages.scoreboard.mend
	@$(RUN) python -m stages.scoreboard.reproduce --jobs $(JOBS)
	@$(RUN) python -m stages.scoreboard.verdicts --show

verify: data ## hold every committed number against what made it; repeats one training
	@$(RUN) python -m stages.scoreboard.verify

test: data lint ## all tests, the smoke pipeline among them
	$(RUN) OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/done
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) pyright

smoke: data ## every stage, tiny, in a copy of this checkout
	$(RUN) python -m pytest -q tests/test_smoke.py

report: data ## render the reports again from the results
	$(RUN) sh -ec 'for paper in stages/*/paper.yaml; do dvc repro --force --single-item $${paper%paper.yaml}dvc.yaml:report; done'

verdicts: .venv/done ## print the verdicts and where the reports are
	@$(RUN) python -m stages.scoreboard.verdicts --show

OLD = HEAD
NEW = workspace
diff: .venv/done ## what changed beyond noise: verdicts, parameters, numbers; OLD=HEAD~3 NEW=workspace
	@$(RUN) python -m stages.scoreboard.diff '$(OLD)' '$(NEW)'

bench: data ## measure speed into reports/bench (ARGS="--device cuda" on a GPU; 15 minutes)
	$(RUN) python tests/benchmarks/bench.py $(ARGS)
	$(RUN) python tests/benchmarks/growth.py

clean: ## delete models, caches and checkpoints (not data, results or reports)
	rm -rf artifacts .ckpt .cache .pytest_cache .ruff_cache .hypothesis dvc_plots
