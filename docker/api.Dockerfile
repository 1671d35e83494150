# Image of the API, the command line and the migrations, without torch. Build context: the repository root.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
ARG PIP_INDEX_URL=https://pypi.org/simple
RUN python -m venv /opt/frs
COPY docker/api.lock /locks/
RUN /opt/frs/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement /locks/api.lock \
 && /opt/frs/bin/pip uninstall --quiet --yes pip setuptools

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
RUN apt-get update -q && apt-get install -y -q --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin && chmod 0711 /usr/bin/tini && install --mode 0711 /bin/bash /usr/local/bin/probe \
 && useradd --uid 10001 --user-group --home-dir /tmp --no-create-home --shell /usr/sbin/nologin frs \
 && install --directory --owner frs --group frs /data
COPY --from=dependencies /opt/frs /opt/frs
COPY --from=package /ours /opt/frs
ENV PATH=/opt/frs/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 FRS_DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["probe", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health/live HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
