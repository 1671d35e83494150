# Image of the worker and its trainers: torch with the CUDA libraries; the driver comes from the host. Build context: the
# repository root.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
ARG PIP_INDEX_URL=https://pypi.org/simple
RUN python -m venv /opt/frs
COPY docker/worker.lock /locks/
RUN /opt/frs/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement /locks/worker.lock \
 && /opt/frs/bin/pip uninstall --quiet --yes pip

FROM ${PYTHON_IMAGE} AS package
ARG PIP_INDEX_URL=https://pypi.org/simple
RUN python -m venv /opt/frs
COPY docker/build.lock /locks/
RUN /opt/frs/bin/pip install --no-cache-dir --require-hashes --requirement /locks/build.lock
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY mmcv_torchvision mmcv_torchvision
COPY frs frs
COPY store store
COPY worker worker
COPY api api
COPY cli cli
RUN /opt/frs/bin/pip install --no-deps --no-build-isolation --prefix /ours .

FROM ${PYTHON_IMAGE}
# tini and the health check's shell are not readable (0711), so /proc does not show their environment, which contains
# passwords, to other processes.
RUN apt-get update -q && apt-get install -y -q --no-install-recommends tini libglib2.0-0 libgomp1 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin && chmod 0711 /usr/bin/tini && install --mode 0711 /bin/bash /usr/local/bin/probe \
 && useradd --uid 10001 --user-group --home-dir /tmp --no-create-home --shell /usr/sbin/nologin frs \
 && install --directory --owner frs --group frs /data
COPY --from=dependencies /opt/frs /opt/frs
COPY --from=package /ours /opt/frs
ENV PATH=/opt/frs/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    FRS_DATA=/data FRS_HEARTBEAT_FILE=/tmp/alive \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /data
VOLUME /data
# The worker writes the time since boot, in seconds, to this file in every loop in which it reached the database.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["probe", "-c", "read -r now _ </proc/uptime && read -r was </tmp/alive && [ $((${now%.*} - was)) -lt 60 ]"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "worker"]
