# The control plane's image: `docker compose up`, or `docker build -t instadeploy-control-plane .`
# It needs no BuildKit. For a build that can be repeated, pin the base by digest:
#   docker build --build-arg BASE_IMAGE=python:3.12-slim@sha256:... .
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /app
COPY requirements.txt ./
# The environment gets no pip of its own: what runs cannot install anything.
RUN python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python3 install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes --no-deps -r requirements.txt
COPY run.py LICENSE ./
COPY control_plane control_plane
# What hosts are served to install.
COPY agent agent
RUN /opt/venv/bin/python3 -m compileall -q run.py control_plane

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="InstaDeploy control plane" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATABASE_URL=sqlite:////data/control_plane.db
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# By number, so that an orchestrator can see that it is not root without reading /etc/passwd.
RUN mkdir -m 0700 /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client and not urllib: it asks this container even where HTTP_PROXY is set. Who it is that it asks needs no proof.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import http.client as h, os, ssl, sys; to = {'host': '127.0.0.1', 'port': int(os.environ['PORT']), 'timeout': 4}; c = h.HTTPSConnection(**to, context=ssl._create_unverified_context()) if os.environ.get('TLS_CERTFILE') else h.HTTPConnection(**to); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
CMD ["python3", "run.py"]
