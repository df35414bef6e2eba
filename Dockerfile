# Runs Segue on the PostgreSQL at DATABASE_URL:
#   docker build -t segue .
#   docker run -p 8000:8000 -e DATABASE_URL=postgresql://user:password@host/database segue

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app ./app
COPY docs ./docs
COPY migrations ./migrations
COPY openapi ./openapi
RUN python -m venv /opt/segue \
    && /opt/segue/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/segue segue
COPY --from=build /opt/segue /opt/segue
ENV PATH=/opt/segue/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SEGUE_HOST=0.0.0.0 \
    SEGUE_PORT=8000 \
    SEGUE_DATA_DIR=/var/lib/segue/data
USER segue
WORKDIR /var/lib/segue
EXPOSE 8000
# SIGINT shuts down gracefully: queued messages are committed and acknowledged before the process ends.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"SEGUE_PORT\"]}/livez', timeout=2)"]
CMD ["segue", "serve"]
