# The gateway, and with `simulate` a netrunner to try it on. Any builder makes it:
#
#   docker build --tag zap-gateway --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .
#
# for linux/amd64 and linux/arm64 (--platform): every dependency has wheels for both, so nothing is
# compiled and no compiler is needed.
#
# slim-trixie is the smallest image of an exact CPython on the C library that the tests run on, glibc.
# Alpine's is smaller and has another one, musl; a distroless one follows Debian's Python, and no tag
# pins that. Both stages begin with it: the environment that the first makes runs in the second at
# the same path, on the same Python.
FROM python:3.13.14-slim-trixie AS base


FROM base AS build

# Extras of pyproject.toml to install, as in EXTRAS=otel. The lock has the versions of all of them.
ARG EXTRAS=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# First what seldom changes, so that a change of the code does not fetch anything again.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m pip wheel --require-hashes --only-binary=:all: --wheel-dir=/wheels \
        --requirement=requirements.lock \
    && python3 -m pip install --require-hashes --only-binary=:all: \
        --requirement=requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY zapcore/ zapcore/
COPY gateway/ gateway/
# With what the lock just installed: an isolated build would fetch its tools unchecked.
RUN python3 -m pip wheel --no-build-isolation --no-deps --no-index --wheel-dir=/wheels .

# Nobody can write bytecode later, so it is made here, and holds whatever date a file gets.
RUN python3 -m venv --without-pip /opt/zap-gateway \
    && python3 -m pip --python=/opt/zap-gateway/bin/python install --no-compile --no-index \
        --find-links=/wheels "zap-gateway${EXTRAS:+[$EXTRAS]}" \
    && python3 -m pip --python=/opt/zap-gateway/bin/python check \
    && /opt/zap-gateway/bin/python -m compileall -q --invalidation-mode=unchecked-hash \
        /opt/zap-gateway/lib


FROM base

COPY --from=build /opt/zap-gateway /opt/zap-gateway

# The gateway writes nothing but its log: the root file system may be read-only. It listens on
# 127.0.0.1 where nothing else is said. That is right for a sidecar that only the containers of its
# Pod use: they share that address. For probes of the kubelet and for a published port
# ZAP_GATEWAY_HOST=0.0.0.0 is needed, and then tokens: without them it does not start.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
EXPOSE 8081

# By number, so that Kubernetes can tell that it is not root. There is no such user in /etc/passwd.
USER 10001:10001

# Without a shell anywhere: the gateway is process 1, and the signals are its own.
ENTRYPOINT ["/opt/zap-gateway/bin/zap-gateway"]
CMD ["serve"]

# It asks the gateway that the same ZAP_GATEWAY_… settings describe. Kubernetes does not look at it.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["/opt/zap-gateway/bin/zap-gateway", "healthcheck"]

ARG SOURCE=
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="zap-gateway" \
      org.opencontainers.image.description="HTTP/JSON gateway to Lux netrunner's native ZAP protocol" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
