# Every target works from a fresh clone: it needs Python >= 3.11, a C compiler, and for the tests a JDK 17 with Maven
# and Node.js 20 with npm.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/millstream
KAFKA_JARS := $(CACHE)/java/kafka-4.3.0
AVRO_JARS := $(CACHE)/java/avro-1.12.1
HADOOP_JARS := $(CACHE)/java/hadoop-3.5.0
HTTPFS_JARS := $(CACHE)/java/httpfs-3.4.2
SPARK_JARS := $(CACHE)/java/spark-4.1.1
SPARK := $(CACHE)/spark-4.1.1
NODE_FOLDER := $(CACHE)/node/schemaregistry-1.10.1
KERNEL_SOURCES := $(shell find src -path '*/_kernels/*' \( -name '*.py' -o -name '*.pxd' -o -name '*.h' -o -name '*.c' \))
export MILLSTREAM_KAFKA_JARS := $(KAFKA_JARS)
export MILLSTREAM_AVRO_JARS := $(AVRO_JARS)
export MILLSTREAM_HADOOP_JARS := $(HADOOP_JARS)
export MILLSTREAM_HTTPFS_JARS := $(HTTPFS_JARS)
export MILLSTREAM_NODE_MODULES := $(NODE_FOLDER)/node_modules
export MILLSTREAM_REQUIRE_KERNELS ?= 1
# Tests start some thousand processes: where none may keep what it compiled, each compiles all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup lint test test-newer test-kerberos unit bench soak demo demo-hdfs docs clean jars httpfs archives spark npm lock

setup: $(VENV)/.installed  ## create the environment with every extra but kerberos, and compile the kernels

$(VENV)/.locked: requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[^ ;]+' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml setup.py $(KERNEL_SOURCES)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -e .
	touch $@

jars: $(KAFKA_JARS)/.complete $(AVRO_JARS)/.complete $(HADOOP_JARS)/.complete  ## fetch Apache Kafka's, Avro's and Hadoop's jars, which we are held against

$(KAFKA_JARS)/.complete: tools/java/kafka.pom.xml
	mvn -q -B -ntp -f $< org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies -DoutputDirectory=$(KAFKA_JARS)
	touch $@

$(AVRO_JARS)/.complete: tools/java/avro.pom.xml
	mvn -q -B -ntp -f $< org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies -DoutputDirectory=$(AVRO_JARS)
	touch $@

$(HADOOP_JARS)/.complete: tools/java/hadoop.pom.xml
	mvn -q -B -ntp -f $< org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(HADOOP_JARS)
	touch $@

httpfs: $(HTTPFS_JARS)/.complete  ## fetch Hadoop's gateway, which is no destination, for the tests that show why

$(HTTPFS_JARS)/.complete: tools/java/httpfs.pom.xml
	mvn -q -B -ntp -f $< org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(HTTPFS_JARS)
	touch $@

archives: $(KAFKA_JARS).jsa $(HADOOP_JARS).jsa  ## of the classes in those jars, with which tests' JVMs start in half the time

# Whoever has none starts slowly, and that is all.
$(KAFKA_JARS).jsa: $(KAFKA_JARS)/.complete | setup
	-$(BIN)/python tools/share_classes.py kafka

$(HADOOP_JARS).jsa: $(HADOOP_JARS)/.complete | setup
	-$(BIN)/python tools/share_classes.py hadoop

spark: $(SPARK)/.complete $(SPARK_JARS)/.complete  ## fetch Spark 4.1.1 and its Kafka source into an environment of its own, the loader's peer

$(SPARK)/.complete: $(VENV)/.locked
	test -x $(SPARK)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(SPARK)
	$(BIN)/uv pip install --quiet --python $(SPARK)/bin/python pyspark==4.1.1
	touch $@

$(SPARK_JARS)/.complete: tools/java/spark.pom.xml
	mvn -q -B -ntp -f $< org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(SPARK_JARS)
	touch $@

npm: $(NODE_FOLDER)/.complete  ## fetch Confluent's JavaScript client of schema registries, for the tests that hold ours against it

$(NODE_FOLDER)/.complete: tools/node/package.json tools/node/package-lock.json
	mkdir -p $(NODE_FOLDER)
	cp $^ $(NODE_FOLDER)
	npm ci --prefix $(NODE_FOLDER) --silent --ignore-scripts --no-audit --no-fund
	touch $@

lint: setup
	$(BIN)/ruff check src tests bench tools setup.py
	$(BIN)/ruff format --check src tests bench tools setup.py
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint jars httpfs archives npm  ## lint, then every test; long matrices by a seeded sample
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests
	$(BIN)/python tools/test_newer.py --short

test-newer: setup  ## the unit tests under python3.12, python3.13, python3.14, those that are there
	$(BIN)/python tools/test_newer.py

# The package is built against the headers of Kerberos (libkrb5-dev, krb5-devel), which not every machine has, so it is
# kept beside the environment. The key server is Debian's krb5-kdc with krb5-admin-server.
$(CACHE)/kerberos/.complete: $(VENV)/.locked
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(@D) gssapi
	touch $@

test-kerberos: setup jars $(CACHE)/kerberos/.complete  ## Apache Kafka, a secured HDFS and a Hive metastore, in Kerberos realms of their own
	PYTHONPATH=$(CACHE)/kerberos $(BIN)/pytest -m kerberos tests/interop tests/hadoop_loader

unit: setup
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests -m "not java and not hdfs and not node and not slow"

soak: setup jars httpfs archives npm  ## the long matrices whole
	MILLSTREAM_SOAK=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --timeout 3600 tests

fuzz: setup  ## damaged Avro datums through kernels built with AddressSanitizer
	$(BIN)/python tools/fuzz_avro.py --sanitize --seconds 300

bench: setup jars spark
	$(BIN)/python bench/wire.py
	$(BIN)/python bench/records.py
	$(BIN)/python -m bench.log
	$(BIN)/python bench/start.py
	$(BIN)/python bench/control.py
	$(BIN)/python bench/assignors.py
	$(BIN)/python -m bench.avro --write-doc docs/performance.md
	$(BIN)/python -m bench.broker --write-doc docs/performance.md
	$(BIN)/python -m bench.groups --write-doc docs/performance.md
	$(BIN)/python -m bench.cleaner --write-doc docs/performance.md
	$(BIN)/python -m bench.client --write-doc docs/performance.md
	$(BIN)/python -m bench.registry --write-doc docs/performance.md
	$(BIN)/python -m bench.loader --write-doc docs/performance.md
	$(BIN)/python -m bench.compaction --write-doc docs/performance.md
	$(BIN)/python -m bench.filesystem --write-doc docs/performance.md

demo: setup  ## the main job on real data, into local files
	$(BIN)/millstream demo

demo-hdfs: setup jars  ## the same into a real HDFS
	$(BIN)/python tools/demo_hdfs.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock:
	$(BIN)/uv pip compile pyproject.toml --extra all --group dev --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate --generate-hashes -o requirements.lock

clean:
	rm -rf $(VENV) build dist site *.egg-info src/*.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src -name '*.so' -delete
