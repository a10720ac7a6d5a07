# Everything a contributor runs. Each target sets up what it needs in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FLIGHTS := $(VENV)/.flights
PODMAN_COMPOSE := $(VENV)/.podman-compose
KUBERNETES := $(VENV)/.kubernetes-validate
LOCKER := $(VENV)/lock/.installed
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
LOCK := $(VENV)/lock/bin/uv pip compile --quiet --no-config --universal --no-annotate --custom-compile-command "make lock"

# A test process that crashes fails its run at once: pytest-xdist waits forever for the last tests of the others if it
# replaces the process.
NO_RESTARTS := --max-worker-restart=0

ON_OLD_KAFKA := tests/contracts tests/kafka/test_worker_kills.py::test_kills_at_each_step_of_a_commit_on_one_state_leave_outputs_and_tables_exact \
	tests/kafka/test_load_kills.py::test_kills_at_each_point_of_one_load_lose_and_double_no_row

.PHONY: demo drills test test-broken test-docs test-kills test-outages test-stale-leader test-false-alarms test-security test-acls test-monitoring test-browser test-helm test-peers test-streams test-faust test-containers test-old-kafka lint docs screenshots bench bench-faust bench-peers bench-scale soak release-check environments lock clean
.DEFAULT_GOAL := test

demo: $(INSTALLED) $(FLIGHTS)  ## real flights through the flights app, with kills, checked
	$(BIN)/python -m examples.flights.demo $(DEMO)

drills: $(INSTALLED) $(FLIGHTS)  ## failures rehearsed on the flights app; reports in build/drills
	timeout 1200 $(BIN)/python -m tools.drills $(DRILLS)

test: $(INSTALLED)  ## the test suite, three files at a time, each side on a Kafka of its own
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(NO_RESTARTS) $(TESTS)

test-broken: $(INSTALLED)  ## every rule of the protocols, broken on purpose in a copy: its test must fail
	$(BIN)/python -m pytest tests/broken -m broken -n 3 --dist worksteal $(NO_RESTARTS) $(TESTS)

test-docs: $(INSTALLED)  ## the commands and the tests of pages, as a reader runs them, each page on a Kafka of its own
	$(BIN)/python -m pytest tests/docs -m docs -n 3 --dist worksteal $(NO_RESTARTS) $(TESTS)

test-kills: $(INSTALLED)  ## kills at each step of every protocol; twenty faults in a fleet; rehearsals of runbooks; a million rows to PostgreSQL
	$(BIN)/python -m pytest tests -m kills $(TESTS)

test-outages: $(INSTALLED)  ## Kafka away for minutes; nodes of three killed
	$(BIN)/python -m pytest tests -m outage $(TESTS)

test-stale-leader: $(INSTALLED)  ## twenty times: a node of three loses its controllers and keeps answering; takes an hour
	STALE_LEADER_RUNS=$(or $(RUNS),20) $(BIN)/python -m pytest tests/kafka/test_stale_leader.py -m outage $(TESTS)

test-false-alarms: $(INSTALLED)  ## ten minutes at a load of 40: no living worker may be reported as ended
	$(BIN)/python -m pytest tests/kafka/test_false_alarms.py -m alarms $(TESTS)

test-old-kafka: $(INSTALLED)  ## contracts and kills on the oldest supported Kafka
	$(BIN)/python -m pytest --kafka-version 3.9 -m "not outage and not containers" $(or $(TESTS),$(ON_OLD_KAFKA))

test-security: $(INSTALLED)  ## roles with the ACLs that `pipeline acls` prints, over TLS and SASL/SCRAM
	$(BIN)/python -m pytest tests/security -m secured $(TESTS)

test-monitoring: $(INSTALLED)  ## alert rules and the dashboard in Prometheus, installed by apt: root on Debian
	$(BIN)/python -m pytest tests/monitoring -m monitoring $(TESTS)

test-acls: $(INSTALLED)  ## workers and commands without one of their ACLs: each must name the missing one; a drill with its ACLs
	$(BIN)/python -m pytest tests/security -m acls $(TESTS)

test-browser: $(INSTALLED)  ## pages in headless Chromium, installed by apt: root on Debian
	$(BIN)/python -m pytest tests -m browser $(TESTS)

test-helm: $(INSTALLED) $(KUBERNETES)  ## the chart in deploy/helm, rendered by Helm, which is built from its Go module
	$(BIN)/python -m pytest tests/helm -m helm $(TESTS)

test-peers: $(INSTALLED)  ## a small comparison with the raw client, whose environment it makes
	$(BIN)/python -m pytest tests/benchmarks/test_peers.py -m peers $(TESTS)

test-streams: $(INSTALLED)  ## windows, sessions and joins give the results of Kafka Streams, which runs in its test driver: needs javac
	$(BIN)/python -m pytest tests/streams -m streams $(TESTS)

test-faust: $(INSTALLED)  ## Faust applications under Faust, and under workers that are killed: the results are the same
	$(BIN)/python -m pytest tests/faust -m faust $(TESTS)

test-containers: $(INSTALLED) $(FLIGHTS) $(PODMAN_COMPOSE)  ## the images and docker-compose.yml, under podman: root on Debian
	$(BIN)/python -m pytest tests/containers -m containers $(TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)  ## the documentation site, in build/docs/site; a broken link or anchor fails
	$(BIN)/python -m tools.site prepare build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file build/docs/mkdocs.yml
	$(BIN)/python -m tools.site check build/docs

screenshots: $(INSTALLED)  ## the pictures in docs/assets, taken of a live app with headless Chromium, installed by apt: root on Debian
	$(BIN)/python -m tools.screenshots $(SCREENSHOTS)

bench: $(INSTALLED)  ## throughput beside the raw client; how soon a killed worker commits again
	$(BIN)/python -m benchmarks $(BENCH)

bench-faust: $(INSTALLED)  ## a Faust application under Faust and under a worker: records/s, and what is lost or repeated after kills
	$(BIN)/python -m benchmarks faust $(FAUST)

bench-scale: $(INSTALLED)  ## a simulated fleet: 1,000 workers, 10,000 tasks; SCALE="WORKERS TASKS" for another size
	$(BIN)/python -m benchmarks.scale $(SCALE)

bench-peers: $(INSTALLED)  ## beside Kafka Streams, Quix Streams, faust-streaming and the raw client; writes docs/reference/performance.md
	$(BIN)/python -m benchmarks peers $(PEERS)

soak: $(INSTALLED)  ## memory, descriptors, disk and journal of a worker under a steady load; HOURS=1
	$(BIN)/python -m benchmarks.soak --hours $(or $(HOURS),1) $(SOAK)

release-check: $(INSTALLED)  ## wheel and source archive, installed and tried in an empty environment
	$(BIN)/python -m tools.release_check

lock: $(LOCKER)  ## pin what pyproject.toml asks for, with hashes: constraints.txt and requirements/; UPGRADE=--upgrade takes new releases
	$(LOCK) --all-extras $(UPGRADE) pyproject.toml -o constraints.txt
	$(LOCK) --all-extras --generate-hashes -c constraints.txt pyproject.toml -o requirements/dev.txt
	$(LOCK) --extra otel --extra postgres --generate-hashes -c constraints.txt pyproject.toml -o requirements/runtime.txt
	echo kubernetes-validate | $(LOCK) --generate-hashes -c constraints.txt $(UPGRADE) - -o tests/helm/requirements.txt
	echo hatchling | $(LOCK) --generate-hashes -c constraints.txt - -o requirements/build.txt
	for system in raw quix faust; do \
		$(LOCK) --generate-hashes $(UPGRADE) benchmarks/peers/programs/$$system.requirements.in -o benchmarks/peers/programs/$$system.requirements.txt || exit; done
	echo uv | $(LOCK) --generate-hashes $(UPGRADE) - -o requirements/lock.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build .pipeline
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(FLIGHTS): $(INSTALLED) examples/flights/requirements.txt
	$(BIN)/python $(PIP_INSTALL) --require-hashes --no-deps -r examples/flights/requirements.txt
	@touch $@

$(PODMAN_COMPOSE): $(INSTALLED) tests/containers/requirements.txt
	$(BIN)/python $(PIP_INSTALL) --require-hashes --no-deps -r tests/containers/requirements.txt
	@touch $@

environments: $(INSTALLED) $(FLIGHTS) $(PODMAN_COMPOSE) $(KUBERNETES)  ## what the tests of examples, containers and the chart need besides

$(KUBERNETES): $(INSTALLED) tests/helm/requirements.txt
	$(BIN)/python $(PIP_INSTALL) --require-hashes --no-deps -r tests/helm/requirements.txt
	@touch $@

$(LOCKER): requirements/lock.txt
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python $(PIP_INSTALL) --require-hashes -r requirements/lock.txt
	@touch $@
