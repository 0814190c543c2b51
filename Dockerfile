# Targets: operator (also runs prepare; no torch) and trainer-example. Both base images are build arguments, so that
# the same file builds with a registry (these defaults) and without one (hack/images.sh makes and names its own).
ARG OPERATOR_BASE=python:3.11.14-slim-bookworm
# Any image with Python 3.11 or newer and torch will do.
ARG TRAINER_BASE=pytorch/pytorch:2.6.0-cuda12.4-cudnn9-runtime

FROM ${OPERATOR_BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv /opt/build
COPY requirements/build.txt requirements/
RUN /opt/build/bin/pip install --quiet --require-hashes -r requirements/build.txt
COPY hack/build_zipapp.py hack/
COPY pyproject.toml README.md LICENSE ./
COPY protocol protocol
COPY volume volume
COPY operator operator
COPY trainer_entrypoint trainer_entrypoint
COPY cli cli
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /out . \
 && /opt/build/bin/python hack/build_zipapp.py /out/sweeprun.pyz

FROM ${OPERATOR_BASE} AS operator-python
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/sweeprun/venv
COPY requirements/operator.txt /requirements.txt
RUN /opt/sweeprun/venv/bin/pip install --quiet --require-hashes -r /requirements.txt

FROM ${OPERATOR_BASE} AS operator
RUN groupadd --gid 65532 sweeprun && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent sweeprun
COPY --from=operator-python /opt/sweeprun /opt/sweeprun
ENV PATH=/opt/sweeprun/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
# Python's images come without the standard library's compiled modules, and the user below may write none: every prepare
# would compile again what it imports.
RUN python -c 'import argparse, dataclasses, hashlib, json, resource, secrets, struct, threading, typing'
# What changes with every commit comes last, in small layers: only those are loaded again into a cluster.
COPY --from=build /out /opt/sweeprun/dist
RUN pip install --quiet --no-index --no-deps --no-cache-dir /opt/sweeprun/dist/*.whl \
 && ln -s dist/sweeprun.pyz /opt/sweeprun/sweeprun.pyz
WORKDIR /
USER 65532:65532
ENTRYPOINT ["python"]
CMD ["-m", "sweeprun_operator"]

FROM ${TRAINER_BASE} AS trainer-python
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# torch is the base image's.
RUN python3 -m venv --system-site-packages /opt/sweeprun/venv
COPY requirements/trainer.txt /requirements.txt
RUN /opt/sweeprun/venv/bin/pip install --quiet --require-hashes -r /requirements.txt

FROM ${TRAINER_BASE} AS trainer-example
RUN groupadd --gid 1000 trainer 2>/dev/null; useradd --uid 1000 --gid 1000 --create-home trainer 2>/dev/null; \
    id 1000 >/dev/null
COPY --from=trainer-python /opt/sweeprun/venv /opt/sweeprun/venv
# training-operator's init container asks for nslookup, which a training image seldom has.
COPY hack/nslookup /usr/local/bin/nslookup
# Debian's torch is built without libuv; one thread for each rank keeps sums in one order.
ENV PATH=/opt/sweeprun/venv/bin:/opt/conda/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 USE_LIBUV=0 OMP_NUM_THREADS=1
COPY --from=build /out /opt/sweeprun/dist
RUN pip install --quiet --no-index --no-deps --no-cache-dir /opt/sweeprun/dist/*.whl
COPY examples /opt/sweeprun/examples
WORKDIR /opt/sweeprun
USER 1000:1000
ENTRYPOINT ["python"]
CMD ["-c", "import torch; print('sweeprun trainer image, torch', torch.__version__)"]
