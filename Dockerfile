# The base image, by tag or by digest (python@sha256:…): Debian with Python 3.11 or newer.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Two environments: the one that is shipped has no pip and nothing that only the build needs.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/exporter \
    && mkdir /var/lib/cloudflare-workflows-exporter
WORKDIR /src
# The requirements first: the layer stays as it is until the lock changes.
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN /opt/build/bin/pip install --require-hashes --requirement requirements/build.txt \
    && /opt/build/bin/pip --python /opt/exporter/bin/python install --require-hashes --requirement requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/build/bin/pip --python /opt/exporter/bin/python install --no-deps --no-index /dist/*.whl

FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="cloudflare-workflows-exporter" \
      org.opencontainers.image.description="Prometheus exporter for Cloudflare Workflows instances" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
COPY --from=build /opt/exporter /opt/exporter
COPY --from=build --chown=65532:65532 /var/lib/cloudflare-workflows-exporter /var/lib/cloudflare-workflows-exporter
ENV PATH=/opt/exporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    CWE_WEB__LISTEN_ADDRESS=0.0.0.0:9734
# The folder of state.path, which is relative by default.
WORKDIR /var/lib/cloudflare-workflows-exporter
# A number, so that Kubernetes can check that it isn't root.
USER 65532:65532
EXPOSE 9734
ENTRYPOINT ["cloudflare-workflows-exporter"]
