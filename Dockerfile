# Two stages: the first fetches and builds wheels (checked against the hashes in requirements.lock), the second installs
# them with no network and no compiler. Build it from the root of the repository:
#
#     docker build -t keeptrusts-gateway .
#     docker run -p 41002:41002 -v keeptrusts:/var/lib/keeptrusts keeptrusts-gateway
#
# BASE_IMAGE may be any Debian or Ubuntu image with python3 (3.11 or newer) and its venv module.
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY deploy/image/build.sh requirements.lock ./
RUN ./build.sh dependencies /wheels
COPY pyproject.toml README.md ./
COPY gateway gateway
COPY translators translators
COPY policy policy
RUN ./build.sh project /wheels

FROM ${BASE_IMAGE}
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    --mount=type=bind,from=build,source=/src,target=/src \
    --mount=type=bind,source=deploy/image/install.sh,target=/install.sh \
    sh /install.sh /wheels /src/requirements.lock
COPY deploy/image/healthcheck.py /opt/keeptrusts/healthcheck.py
COPY examples/policy-config.yaml /etc/keeptrusts/policy-config.yaml

ENV PATH=/opt/keeptrusts/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KT_STATE_DIR=/var/lib/keeptrusts
USER keeptrusts
WORKDIR /var/lib/keeptrusts
VOLUME /var/lib/keeptrusts
EXPOSE 41002
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "/opt/keeptrusts/healthcheck.py"]
ENTRYPOINT ["kt"]
CMD ["gateway", "run", "--policy-config", "/etc/keeptrusts/policy-config.yaml", "--listen", "0.0.0.0:41002"]
